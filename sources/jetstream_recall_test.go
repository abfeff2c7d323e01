package sources

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
	"github.com/natsrelay/natsrelay/relay"
)

// disorder has the consumer deliver again what it has handed out, the given sequences, the last first. Nobody must be connected.
func (s *streamer) disorder(from, to uint64) {
	s.t.Helper()
	delivered := s.info().Delivered.Consumer // being asked, the server also forgets the requests of who is gone
	for n := to; n >= from; n-- {
		subject := fmt.Sprintf("$JS.ACK.S.d.1.%d.%d.0.0", n, delivered)
		if _, err := s.nc.Request(subject, ackReturned, patience); err != nil {
			s.t.Fatal(err)
		}
	}
}

// publishLarge stores n messages of so many bytes.
func (s *streamer) publishLarge(n, size int) {
	s.t.Helper()
	for range n {
		s.publishMsg(&nats.Msg{Subject: "s.large", Data: bytes.Repeat([]byte("x"), size)})
	}
}

// awaitSequences waits until the first messages of the stream have arrived, and expects each once and in order.
func (h *jsHarness) awaitSequences(n int) {
	h.t.Helper()
	natstest.Eventually(h.t, fmt.Sprintf("%d messages arrive", n), func() bool { return h.count() >= n })
	for i, sequence := range h.sequences() {
		if sequence != uint64(i)+1 {
			h.t.Fatalf("place %d has message %d", i+1, sequence)
		}
	}
}

func (h *jsHarness) sequences() (all []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.msgs {
		all = append(all, m.Sequence)
	}
	return all
}

// loseOnTheWay has the consumer hand out what nobody gets, and deliver it again in disorder to who comes then.
func loseOnTheWay(t *testing.T, stream *streamer, door *tcpproxy.Proxy, from, to uint64, publish func(n int)) {
	t.Helper()
	door.Stall()
	publish(int(to - from + 1))
	natstest.Eventually(t, "all are handed out", func() bool { return stream.info().Delivered.Stream == to })
	door.Refuse()
	door.Cut()
	door.Resume()
	stream.disorder(from, to)
	if err := door.Accept(); err != nil {
		t.Fatal(err)
	}
}

// What was lost on its way comes before what was handed out later, however little may be handed out beside what the route holds, in whatever order it comes.
func TestJetStreamRecallsInLittleRoom(t *testing.T) {
	for _, policy := range []string{"explicit", "all"} {
		t.Run(policy, func(t *testing.T) {
			srv, stream := startStream(t)
			door := tcpproxy.Start(t, srv.Addr())
			cfg := jsConfig()
			cfg.AckPolicy, cfg.AckWait, cfg.MaxAckPending = policy, 2*patience, 40
			h := prepareJS(t, cfg, t.TempDir(), "nats://"+door.Addr())
			h.hold = true
			h.run()
			stream.publish(35)
			h.await(1, 35)
			loseOnTheWay(t, stream, door, 36, 40, stream.publish)
			h.await(1, 40)
			h.set(func() { h.hold = false })
			h.settle(relay.FateDone)
			stream.publish(20)
			h.await(1, 60)
			stream.awaitAcked()
		})
	}
}

// The same, where what is recalled does not fit into pull_bytes; and once more while it is being waited for.
func TestJetStreamRecallsMoreThanPullBytes(t *testing.T) {
	for _, policy := range []string{"explicit", "all"} {
		t.Run(policy, func(t *testing.T) {
			srv, stream := startStream(t)
			door := tcpproxy.Start(t, srv.Addr())
			cfg := jsConfig()
			cfg.AckPolicy, cfg.AckWait, cfg.PullBytes = policy, 2*patience, 64<<10
			dead := prepareJS(t, cfg, t.TempDir(), srv.URL())
			dead.hold = true
			dead.run()
			stream.publishLarge(20, 20<<10)
			dead.awaitSequences(20)
			dead.kill()
			stream.disorder(1, 20)
			h := startJS(t, cfg, "nats://"+door.Addr())
			natstest.Eventually(t, "some are handed out again", func() bool { return stream.info().NumRedelivered > 0 })
			door.Cut()
			h.awaitSequences(20)
			stream.publishLarge(20, 20<<10)
			h.awaitSequences(40)
			stream.awaitAcked()
		})
	}
}

// What is awaited and never comes is not waited for for ever, and what comes of it after all is known to be late.
func TestJetStreamRecallsWhatNeverComes(t *testing.T) {
	srv, _ := startStream(t)
	h := prepareJS(t, jsConfig(), t.TempDir(), srv.URL())
	b := &binding{info: &jetstream.ConsumerInfo{Delivered: jetstream.SequenceInfo{Stream: 2}}}
	h.src.bound, h.src.times.late = b, -time.Second // any time is too long
	await := func() { h.src.await(b, awaited{left: 1, again: []uint64{1}, last: 2}) }
	await()
	deliver(h.src.ledger, 2)
	b.info.Paused = true
	await()
	await() // a consumer that is paused cannot deliver
	b.info.Paused = false
	await()
	if got, _ := drain(h.src.ledger); got != nil {
		t.Errorf("the route gets %d at once", got)
	}
	await()
	if got, _ := drain(h.src.ledger); !slices.Equal(got, []uint64{2}) {
		t.Errorf("the route gets %d, want 2", got)
	}
	if h.log.Count("somebody else must hold it") != 1 || !h.src.sharedLately() {
		t.Error("want a line that says so, and a note of it")
	}
	deliver(h.src.ledger, 1)
	if m := h.src.ledger.next(t.Context(), nil)[0]; !m.Late {
		t.Error("message 1 is not marked as late")
	}
}
