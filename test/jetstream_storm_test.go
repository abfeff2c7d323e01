package test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	stormSeed  = flag.Uint64("storm.seed", 1, "the first seed of TestJetStreamStorm; 0: any")
	stormSeeds = flag.Int("storm.seeds", 4, "how many storms TestJetStreamStorm makes, of one seed after the other")
)

// A route from stream to stream, of any configuration, in a storm: everything that can be cut, stalled or killed is, several at a time. When it is over the
// target holds every message, in order: once with exactly_once, at least once without. And the source knows it.
func TestJetStreamStorm(t *testing.T) {
	t.Parallel()
	first := *stormSeed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	for seed := first; seed < first+uint64(*stormSeeds); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			s := newStorm(t, planStorm(seed))
			s.rage()
			s.heal()
		})
	}
}

// A storm is a link that goes through what a plan says.
type storm struct {
	*link
	plan    *stormPlan
	js      jetstream.JetStream // of the source's server
	arrived arrivals
}

func newStorm(t *testing.T, p *stormPlan) *storm {
	t.Helper()
	began := time.Now()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("go test ./test -run TestJetStreamStorm -storm.seeds 1 -storm.seed %d\nbegan at %v\n%v", p.seed, began.Format(time.RFC3339Nano), p)
		}
	})
	s := &storm{link: startLink(t, p.target), plan: p}
	s.relay = newStreamSink(t, "nats://"+s.near.Addr(), []string{"nats://" + s.far.Addr()}, p.source, p.delivery+"\n[route.link.buffer]\n"+p.buffer, p.sink)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the source's consumer, at the end: %+v", s.consumer())
		}
	})
	var err error
	if s.js, err = jetstream.New(s.from, jetstream.WithPublishAsyncMaxPending(64)); err != nil {
		t.Fatal(err)
	}
	s.arrived = arrivals{plan: p, nc: s.to}
	s.publish(1, p.early)
	return s
}

// rage does all that is planned, each when its time has come: a server that takes long to start delays what comes after it.
func (s *storm) rage() {
	s.t.Helper()
	s.relay.start()
	began := time.Now()
	for i := range s.plan.events {
		e := &s.plan.events[i]
		time.Sleep(time.Until(began.Add(e.at)))
		e.what += fmt.Sprintf(" (%v)", time.Since(began).Round(time.Millisecond))
		e.do(s)
	}
}

// killRelay expects it to be alive: it ends for no outage.
func (s *storm) killRelay() {
	s.t.Helper()
	if s.relay.ended() {
		s.t.Fatal("the relay has ended by itself")
	}
	s.relay.kill()
}

// publish stores the messages from … to at the source, each once. Nothing happens to the source meanwhile.
func (s *storm) publish(from, to int) {
	s.t.Helper()
	within(s.t, 60*time.Second, func() bool { _, ok := lastSequence(s.from, "SOURCE"); return ok }, "the source is there")
	for n := from; n <= to; n++ {
		m := &nats.Msg{Subject: subjectOf(n), Data: []byte(s.plan.payload(n))}
		if s.plan.ownIDs {
			m.Header = nats.Header{"Nats-Msg-Id": {fmt.Sprint("n", n)}}
		}
		if _, err := s.js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
			s.t.Fatal(err)
		}
	}
	select {
	case <-s.js.PublishAsyncComplete():
	case <-time.After(60 * time.Second):
		s.t.Fatal("the source stream does not take the messages")
	}
	if last, ok := lastSequence(s.from, "SOURCE"); !ok || last != to {
		s.t.Fatalf("the source stream has %d messages, want %d", last, to)
	}
}

// heal waits until the storm has left no trace.
func (s *storm) heal() {
	s.t.Helper()
	limit := time.Minute + 2*s.plan.ackWait
	within(s.t, limit, func() bool {
		done, wrong := s.arrived.look(s.t)
		if wrong != "" {
			s.report(wrong)
		}
		return done
	}, "everything arrives; so far: %v", &s.arrived)
	s.awaitAcked()
	s.relay.stop()
	if _, wrong := s.arrived.look(s.t); wrong != "" {
		s.report(wrong)
	}
	for _, said := range []string{"has lost its end", "dead letter", "panic"} {
		if s.relay.log.contains(said) {
			s.t.Errorf("the relay's log has %q", said)
		}
	}
	s.t.Logf("seed %d: %d messages, %d of them repeated; %d events", s.plan.seed, len(s.arrived.seen), s.arrived.repeats, len(s.plan.events))
}

// report ends the test. It waits until nothing more is to come, so that what is late is told from what is lost.
func (s *storm) report(wrong string) {
	s.t.Helper()
	s.t.Errorf("%s\nthe relay's log is:\n%s", wrong, s.relay.log.tail(2000))
	for end := time.Now().Add(30 * time.Second); !s.acked() && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	_, _ = s.arrived.look(s.t)
	s.t.Fatalf("everything is acknowledged: %v; %v", s.acked(), &s.arrived)
}
