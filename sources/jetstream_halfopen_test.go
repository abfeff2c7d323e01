package sources

import (
	"slices"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
)

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

// The active relay of a standby group would get only what its own old requests leave: then the server chooses anew.
func TestJetStreamStandbyHalfOpen(t *testing.T) {
	t.Parallel()
	srv, stream := startStream(t)
	cfg := jsConfig()
	cfg.Standby, cfg.AckWait = "g", 2*patience
	var relays [2]*jsHarness
	var doors [2]*tcpproxy.Proxy
	for i := range relays {
		doors[i] = tcpproxy.Start(t, srv.Addr())
		relays[i] = prepareJS(t, cfg, t.TempDir(), "nats://"+doors[i].Addr())
		relays[i].src.times.expires = 3 * time.Second
	}
	relays[0].run()
	stream.publish(50)
	relays[0].await(1, 50)
	stream.awaitAcked()
	relays[1].run()
	natstest.Eventually(t, "the other one waits", func() bool { return stream.waiting() >= 2 })
	doors[0].HalfOpen()
	stream.publish(200)
	natstest.Eventually(t, "all arrive", func() bool {
		stream.publish(1) // by a gap before what comes it is seen that something is missing
		return relays[0].count()+relays[1].count() == stream.next-1
	})
	stream.awaitAcked()
	if relays[0].log.Count("that is gone: asked the server to choose anew") == 0 {
		t.Error("want a line that says so")
	}
	for i, h := range relays {
		if sequences := h.sequences(); !slices.IsSorted(sequences) {
			t.Errorf("relay %d got %d", i, sequences)
		}
	}
}
