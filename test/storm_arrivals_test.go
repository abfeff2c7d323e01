package test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// arrivals are what has come into the target stream of a storm, as far as it was looked at. It is looked at in pieces, for it may be large.
type arrivals struct {
	plan *stormPlan
	nc   *nats.Conn

	consumer jetstream.Consumer // nil: not yet looked at
	failed   error              // to look at it

	upTo    uint64       // sequence in the target stream
	seen    map[int]bool // all that has come
	next    int          // as many of the numbers that are to come have, in order
	repeats int          // what has come again
	wrong   string       // the first thing that is not as it should be
}

// look reads what has come since the last time. It reports whether nothing is missing any more, and what is wrong with what has come.
func (a *arrivals) look(t *testing.T) (done bool, wrong string) {
	t.Helper()
	within(t, time.Minute, func() bool {
		if a.failed = a.read(); a.failed != nil {
			a.consumer = nil // the next one goes on behind what was read
		}
		return a.failed == nil
	}, "the target stream is read; so far: %v", a)
	return a.next == len(a.plan.taken), a.wrong
}

// read may fail: the server has just started, or an answer has come too late, with the messages in it.
func (a *arrivals) read() error {
	if a.consumer == nil {
		if err := a.open(); err != nil {
			return err
		}
	}
	for {
		msgs, err := a.consumer.FetchNoWait(100)
		if err != nil {
			return err
		}
		before := a.upTo
		for m := range msgs.Messages() {
			meta, err := m.Metadata()
			if err != nil || meta.Sequence.Stream != a.upTo+1 {
				return fmt.Errorf("message %d was left out", a.upTo+1)
			}
			a.upTo++
			a.take(m)
		}
		if msgs.Error() != nil {
			return msgs.Error()
		}
		if a.upTo == before {
			return a.complete()
		}
	}
}

// complete expects that nothing was delivered that has not come.
func (a *arrivals) complete() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	info, err := a.consumer.Info(ctx)
	if err == nil && info.Delivered.Stream > a.upTo {
		err = fmt.Errorf("message %d was left out", a.upTo+1)
	}
	return err
}

// open makes the consumer by which the target is looked at. Nothing happens to the server any more.
func (a *arrivals) open() error {
	js, err := jetstream.New(a.nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	a.consumer, err = js.CreateConsumer(ctx, "TARGET", jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: a.upTo + 1, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, InactiveThreshold: 5 * time.Minute,
	})
	return err
}

// take compares a message with what is to come: what has not come yet must be the next one.
func (a *arrivals) take(m jetstream.Msg) {
	head, _, _ := strings.Cut(string(m.Data()), " ")
	n, err := strconv.Atoi(head)
	want := a.plan.taken
	switch {
	case err != nil || n < 1 || n > len(a.plan.sizes) || string(m.Data()) != a.plan.payload(n) || m.Subject() != subjectOf(n):
		a.object("damaged: %d bytes, %.20q, on %q", len(m.Data()), m.Data(), m.Subject())
		return
	case a.seen[n]:
		if a.repeats++; a.plan.once {
			a.object("%d is there again", n)
		}
		return
	case a.next < len(want) && n == want[a.next]:
		a.next++
	case a.next < len(want):
		a.object("%d has come, where %d is next", n, want[a.next])
	default:
		a.object("%d has come, which nobody has asked for", n)
	}
	if a.seen == nil {
		a.seen = map[int]bool{}
	}
	a.seen[n] = true
}

// object notes what is wrong, unless something was before.
func (a *arrivals) object(format string, args ...any) {
	if a.wrong == "" {
		a.wrong = fmt.Sprintf("in place %d of the target stream: ", a.upTo) + fmt.Sprintf(format, args...)
	}
}

// String says how much of it has come.
func (a *arrivals) String() string {
	var missing []int
	want := a.plan.taken
	for _, n := range want {
		if !a.seen[n] {
			missing = append(missing, n)
		}
	}
	s := fmt.Sprintf("%d of %d have come, %d again; missing are %d, the first of them %v", len(a.seen), len(want), a.repeats, len(missing), missing[:min(30, len(missing))])
	if a.failed != nil {
		s += fmt.Sprintf("; the stream cannot be read: %v", a.failed)
	}
	return s
}
