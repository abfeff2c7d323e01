package sources

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
	"github.com/natsrelay/natsrelay/relay"
)

// Two relays on one durable share its messages. When one dies, the other gets what that held.
func TestJetStreamTwoShareADurable(t *testing.T) {
	t.Parallel()
	srv, stream := startStream(t)
	cfg := jsConfig()
	cfg.AckWait = 15 * time.Second // half of which a loaded machine may be late to extend what is held
	cfg.MaxAckPending = 100
	one, two := startJS(t, cfg, srv.URL()), startJS(t, cfg, srv.URL())
	natstest.Eventually(t, "both pull", func() bool { return stream.waiting() >= 2 })
	stream.publish(500)
	natstest.Eventually(t, "all arrive", func() bool { return one.count()+two.count() == 500 })
	if one.count() == 0 || two.count() == 0 {
		t.Errorf("not shared: %d and %d", one.count(), two.count())
	}
	one.set(func() { one.hold = true })
	stream.publish(100)
	natstest.Eventually(t, "all arrive", func() bool { return one.count()+two.count() == 600 })
	one.mu.Lock()
	held := slices.DeleteFunc(slices.Clone(one.msgs), func(m *relay.Message) bool { return m.Receipt == nil })
	one.mu.Unlock()
	one.kill()
	natstest.Eventually(t, "the other one gets them", func() bool {
		have := two.data()
		return !slices.ContainsFunc(held, func(m *relay.Message) bool { return !slices.Contains(have, string(m.Data)) })
	})
	stream.awaitAcked()
	if n := one.count() + two.count(); n != 600+len(held) {
		t.Errorf("%d messages of 600 arrived besides %d that the dead one held", n-len(held), len(held))
	}
}

// A relay that joins another one, or comes back to it, leaves to it what it holds, though that asks for nothing because its sink is slow, or away.
func TestJetStreamSharedWithOneThatIsBusy(t *testing.T) {
	t.Parallel()
	srv, stream := startStream(t)
	cfg := jsConfig()
	cfg.MaxAckPending, cfg.AckWait = 50, 20*time.Second
	busy := prepareJS(t, cfg, t.TempDir(), srv.URL())
	busy.hold = true
	busy.run()
	stream.publish(100)
	busy.await(1, 50)
	natstest.Eventually(t, "it asks for nothing", func() bool { return stream.waiting() == 0 })
	dir := t.TempDir()
	joining := prepareJS(t, cfg, dir, srv.URL())
	joining.src.times.joining = patience
	joining.run()
	natstest.Eventually(t, "it looks for others", func() bool { return joining.log.Count("waiting for a sign") > 0 })
	busy.settleFirst(1)
	natstest.Eventually(t, "it sees that it is not alone", func() bool { return joining.log.Count("somebody else pulls from the consumer, too") == 1 })
	busy.settleFirst(9)
	natstest.Eventually(t, "there is room, and it is shared", func() bool { return busy.count()+joining.count() >= 60 })
	joining.stop()
	back := prepareJS(t, cfg, dir, srv.URL()).run()
	natstest.Eventually(t, "it looks for others", func() bool { return back.log.Count("waiting for a sign") > 0 })
	busy.set(func() { busy.hold = false })
	busy.settle(relay.FateDone)
	stream.awaitAcked()
	if n := busy.count() + joining.count() + back.count(); n != 100 {
		t.Errorf("%d messages arrived, want each of 100 once", n)
	}
}

// What may have been delivered out of order, because the consumer was shared, comes late for the next process, too; when all of that is acknowledged it is forgotten.
func TestJetStreamRemembersThatItWasShared(t *testing.T) {
	srv, stream := startStream(t)
	dir := t.TempDir()
	dead := prepareJS(t, jsConfig(), dir, srv.URL())
	dead.hold = true
	dead.run()
	stream.publish(5)
	dead.await(1, 5)
	dead.kill()
	m, err := openMark(dir, dead.log.Logger)
	if err != nil {
		t.Fatal(err)
	}
	m.now.Shared, m.now.SharedTo = now().Add(-2*time.Hour), 5
	m.save()
	next := prepareJS(t, jsConfig(), dir, srv.URL()).run()
	stream.publish(5)
	next.await(1, 10)
	for _, got := range next.msgs {
		if want := got.Sequence <= 5; got.Late != want {
			t.Errorf("message %d is late: %v, want %v", got.Sequence, got.Late, want)
		}
	}
	natstest.Eventually(t, "it is forgotten", func() bool {
		data, err := os.ReadFile(filepath.Join(dir, markFile))
		p, _ := parsePosition(data)
		return err == nil && p.Next == 11 && p.Shared.IsZero() && p.SharedTo == 0
	})
}

// settleFirst settles the first of what is not yet.
func (h *jsHarness) settleFirst(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.msgs {
		if m.Receipt != nil && n > 0 {
			h.settleOne(m, relay.FateDone)
			n--
		}
	}
}

func (s *streamer) waiting() int {
	c, err := s.js.Consumer(s.ctx(), "S", "d")
	if err != nil {
		return 0
	}
	return c.CachedInfo().NumWaiting
}

// Where a connection has ended without the server's knowing, what goes into it is not lost, and comes before what is newer, as soon as the requests that were under
// way have expired: that this relay made is remembered, by its successor, too.
func TestJetStreamHalfOpen(t *testing.T) {
	for _, policy := range []string{"explicit", "all"} {
		for _, restart := range []bool{false, true} {
			t.Run(policy+map[bool]string{true: " and a restart"}[restart], func(t *testing.T) {
				t.Parallel()
				srv, stream := startStream(t)
				door := tcpproxy.Start(t, srv.Addr())
				cfg := jsConfig()
				cfg.AckPolicy, cfg.AckWait = policy, 2*patience
				prepare := func(dir string) *jsHarness {
					h := prepareJS(t, cfg, dir, "nats://"+door.Addr())
					h.src.times.expires = 3 * time.Second
					return h
				}
				dir := t.TempDir()
				h := prepare(dir).run()
				stream.publish(50)
				h.await(1, 50)
				stream.awaitAcked()
				door.HalfOpen()
				if restart {
					h.kill()
					h = prepare(dir).run()
				}
				stream.publish(100)
				if restart {
					h.await(51, 100)
				} else {
					h.await(1, 150)
				}
				stream.awaitAcked()
				if h.src.sharedLately() {
					t.Error("it takes its own requests for somebody else's")
				}
			})
		}
	}
}
