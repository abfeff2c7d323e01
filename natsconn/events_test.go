package natsconn

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"
)

func TestPermissionErrorIsRead(t *testing.T) {
	for text, want := range map[string]PermissionError{
		`Permissions Violation for Publish to "a.b"`:                                  {Publish: true, Subject: "a.b"},
		`Permissions Violation for Publish to "a.\"ü\x01"`:                            {Publish: true, Subject: "a.\"ü\x01"},
		`Permissions Violation for Subscription to "a.>" (sid "1")`:                   {Subject: "a.>"},
		`Permissions Violation for Subscription to "a.*" using queue "q 1" (sid "1")`: {Subject: "a.*", Queue: "q 1"},
		`Permissions Violation for Publish with Reply of "x"`:                         {Publish: true},
		`Permissions Violation`:                                                       {},
	} {
		got := permission(fmt.Errorf("%w: %s", nats.ErrPermissionViolation, text))
		if diff := cmp.Diff(&want, got, cmpopts.IgnoreFields(PermissionError{}, "Err")); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", text, diff)
		}
		if !errors.Is(got, nats.ErrPermissionViolation) {
			t.Errorf("%s: does not wrap nats.ErrPermissionViolation", text)
		}
	}
}

func TestThrottleSumsUpRepeats(t *testing.T) {
	var th throttle
	now := time.Now()
	type line struct {
		held int
		ok   bool
	}
	var got []line
	say := func(key string, after time.Duration) {
		held, ok := th.allow(key, now.Add(after))
		got = append(got, line{held, ok})
	}
	say("a", 0)
	say("a", 1*time.Second)
	say("b", 2*time.Second) // another event is news
	say("a", 29*time.Second)
	say("a", 30*time.Second) // says that two were held back
	say("a", 31*time.Second)
	held := th.reset("a") // a change of state
	say("a", 32*time.Second)
	want := []line{{0, true}, {0, false}, {0, true}, {0, false}, {2, true}, {0, false}, {0, true}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(line{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if held != 1 {
		t.Errorf("reset: %d held back, want 1", held)
	}
}

func TestThrottleRemembersNoMoreThanItMust(t *testing.T) {
	var th throttle
	now := time.Now()
	for i := range 10 * maxKeys {
		if _, ok := th.allow(fmt.Sprint(i), now.Add(time.Duration(i))); !ok {
			t.Fatalf("key %d: a new one was held back", i)
		}
	}
	if len(th.seen) != maxKeys {
		t.Errorf("%d keys remembered, want %d", len(th.seen), maxKeys)
	}
	if _, ok := th.allow(fmt.Sprint(10*maxKeys-1), now); ok {
		t.Error("the newest key was forgotten")
	}
}

func TestEveryKindIsCountedFromTheStart(t *testing.T) {
	e := newEvents(nopLog())
	c := &Conn{events: e}
	c.state.init()
	if got := c.Stats().Errors; len(got) != len(Kinds()) {
		t.Errorf("counters at the start: %v, want one for each of %v", got, Kinds())
	}
}

func TestKindOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Kind
	}{
		{nats.ErrAuthorization, KindAuth},
		{fmt.Errorf("connect: %w", nats.ErrAuthExpired), KindAuth},
		{fmt.Errorf("%w: %w", nats.ErrTLS, errors.New("bad certificate")), KindTLS},
		{nats.ErrSecureConnWanted, KindTLS},
		{&PermissionError{Err: nats.ErrPermissionViolation}, KindPermission},
		{nats.ErrSlowConsumer, KindSlowConsumer},
		{nats.ErrMaxSubscriptionsExceeded, KindLimit},
		{errors.New("nats: Maximum Connections Exceeded"), KindLimit},
		{errors.New("anything"), KindConnect},
	} {
		if got := kindOf(c.err, KindConnect); got != c.want {
			t.Errorf("%v: kind %q, want %q", c.err, got, c.want)
		}
	}
}
