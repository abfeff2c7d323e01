package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
)

// A link is a route from the stream SOURCE of one server to the stream TARGET of another, with a proxy on each line.
type link struct {
	t              *testing.T
	source, target *natstest.Process
	near, far      *tcpproxy.Proxy // before source and target
	relay          *relayProcess
	from, to       *nats.Conn // straight to the servers
}

// newLink starts the servers, with n numbers in the source stream, and makes the relay's configuration. settings are those of the target
// stream, in the API's terms; subjects and name come by themselves.
func newLink(t *testing.T, n int, settings, buffer, sink string) *link {
	t.Helper()
	l := startLink(t, settings)
	publishNumbers(t, l.from, 1, n)
	l.relay = newStreamSink(t, "nats://"+l.near.Addr(), []string{"nats://" + l.far.Addr()}, fromStream+"\nack_wait = \"5s\"",
		"ordering = \"strict\"\n[route.link.buffer]\n"+buffer, sink)
	return l
}

// startLink starts all of a link but the relay. The streams are empty.
func startLink(t *testing.T, settings string) *link {
	t.Helper()
	l := &link{t: t, source: natstest.StartProcess(t, natstest.JetStream(t)), target: natstest.StartProcess(t, natstest.JetStream(t))}
	l.near, l.far = tcpproxy.Start(t, l.source.Addr()), tcpproxy.Start(t, l.target.Addr())
	l.from, l.to = l.source.Client(), l.target.Client()
	makeStream(t, l.from, "SOURCE", "")
	makeStream(t, l.to, "TARGET", settings)
	return l
}

// makeStream creates a stream with the tests' subjects.
func makeStream(t *testing.T, nc *nats.Conn, name, settings string) {
	t.Helper()
	request := fmt.Sprintf(`{"name": %q, "subjects": ["test.>"] %s}`, name, settings)
	within(t, 60*time.Second, func() bool {
		m, err := nc.Request("$JS.API.STREAM.CREATE."+name, []byte(request), 2*time.Second)
		var answer struct{ Error any }
		return err == nil && json.Unmarshal(m.Data, &answer) == nil && answer.Error == nil
	}, "stream %s is created", name)
}

// publishNumbers stores the numbers from … from+n-1, each on its subject.
func publishNumbers(t *testing.T, nc *nats.Conn, from, n int) {
	t.Helper()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1000))
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i < from+n; i++ {
		if _, err := js.PublishAsync(subjectOf(i), []byte(strconv.Itoa(i)), jetstream.WithStallWait(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(60 * time.Second):
		t.Fatal("the source stream does not take the messages")
	}
}

// stored returns how many messages the target has ever taken, false if it does not say.
func (l *link) stored() (int, bool) { return lastSequence(l.to, "TARGET") }

func lastSequence(nc *nats.Conn, stream string) (int, bool) {
	m, err := nc.Request("$JS.API.STREAM.INFO."+stream, nil, time.Second)
	if err != nil {
		return 0, false
	}
	var info struct {
		State struct {
			Last int `json:"last_seq"`
		} `json:"state"`
	}
	err = json.Unmarshal(m.Data, &info)
	return info.State.Last, err == nil
}

// awaitStored waits until the target has taken n messages.
func (l *link) awaitStored(n int, limit time.Duration) {
	l.t.Helper()
	last := 0
	within(l.t, limit, func() bool {
		if now, ok := l.stored(); ok {
			last = now
		}
		return last >= n
	}, "%d messages arrive", n)
}

// content returns the numbers in the target stream, in its order.
func (l *link) content() []int { return streamContent(l.t, l.to, "TARGET") }

func streamContent(t *testing.T, nc *nats.Conn, stream string) (all []int) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	within(t, 2*time.Minute, func() bool {
		all, err = readStream(t, js, stream)
		return err == nil
	}, "stream %s is read", stream)
	return all
}

// readStream may fail: of a cluster that chooses a leader just now, an answer may never come.
func readStream(t *testing.T, js jetstream.JetStream, stream string) (all []int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	info, err := c.Info(ctx)
	if err != nil {
		return nil, err
	}
	for want := int(info.NumPending); len(all) < want; {
		msgs, err := c.FetchNoWait(min(5000, want-len(all)))
		if err != nil {
			return nil, err
		}
		before := len(all)
		for m := range msgs.Messages() {
			n, err := strconv.Atoi(string(m.Data()))
			if err != nil || m.Subject() != subjectOf(n) {
				t.Fatalf("damaged: %q on %q", m.Data(), m.Subject())
			}
			all = append(all, n)
		}
		if len(all) == before {
			return nil, errors.New("nothing comes")
		}
	}
	return all, nil
}

// checkEachOnce expects the numbers 1 … n in the target stream, in order, each once.
func (l *link) checkEachOnce(n int) {
	l.t.Helper()
	checkEachOnce(l.t, l.content(), n)
}

func checkEachOnce(t *testing.T, got []int, n int) {
	t.Helper()
	for i, x := range got {
		if x != i+1 {
			t.Fatalf("number %d is in place %d of the target stream, behind %v", x, i+1, got[max(0, i-3):i])
		}
	}
	if len(got) != n {
		t.Fatalf("%d messages in the target stream, want %d", len(got), n)
	}
}

// awaitAcked waits until the source's consumer has nothing left.
func (l *link) awaitAcked() {
	l.t.Helper()
	within(l.t, 60*time.Second, l.acked, "everything is acknowledged at the source")
}

// acked reports whether the source's consumer has nothing left.
func (l *link) acked() bool {
	c := l.consumer()
	return c != nil && c.NumPending == 0 && c.NumAckPending == 0
}

// consumer returns the state of the source's consumer, nil if there is none or nobody answers.
func (l *link) consumer() *jetstream.ConsumerInfo {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	js, err := jetstream.New(l.from)
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := js.Consumer(ctx, "SOURCE", "natsrelay-link")
	if err != nil {
		return nil
	}
	return c.CachedInfo()
}

func decodeJSON(t *testing.T, data []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(data, to); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}
