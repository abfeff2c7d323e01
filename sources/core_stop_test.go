package sources

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay"
)

// A stop passes on what the client holds, however slowly it is taken.
func TestCoreStopPassesOnWhatItHolds(t *testing.T) {
	for _, connected := range []bool{true, false} {
		t.Run(fmt.Sprintf("connected=%v", connected), func(t *testing.T) {
			srv := natstest.Start(t, "", nil)
			h := start(t, srv, "", "a", "b")
			const n = 2000
			h.fill(srv.Client(), n, "a", "b")
			if !connected {
				srv.Stop()
				natstest.Eventually(t, "cut", func() bool { return !h.conn.Stats().Connected })
			}
			stopped := make(chan error)
			begun := time.Now()
			go func() { stopped <- h.stop() }()
			close(h.hold)
			if err := <-stopped; err != nil {
				t.Fatal(err)
			}
			if got := h.count(); got != n {
				t.Errorf("%d messages passed on, want %d", got, n)
			}
			if took := time.Since(begun); !connected && took > 9*time.Second { // nats.go's drain without a connection lasts 10
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestCoreCountsWhatTheRouteNoLongerTakes(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	h := prepare(t, natstest.Config(srv.URL()), "", "a")
	var refused atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- h.src.Run(ctx, func(*relay.Message) error { refused.Add(1); return relay.ErrStopped })
	}()
	nc := srv.Client()
	natstest.Eventually(t, "refused", func() bool { publish(t, nc, "a", "x"); return refused.Load() > 3 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := h.src.Stats().Stopped; got != uint64(refused.Load()) {
		t.Errorf("%d counted, %d refused", got, refused.Load())
	}
	if err := h.src.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if h.log.Count("no longer takes") != 1 || h.log.Count("are lost", fmt.Sprintf(`"messages":%d,`, refused.Load())) != 1 {
		t.Error("want one log line for the first, and one with how many there were")
	}
}

// A connection that is cut and comes back during a stop brings no subscription back, however long the route takes for what the client holds.
func TestCoreStopThroughACut(t *testing.T) {
	for _, connected := range []bool{true, false} {
		t.Run(fmt.Sprintf("connected=%v", connected), func(t *testing.T) {
			srv := natstest.Start(t, "", nil)
			h := start(t, srv, "g", "a")
			const n = 10
			h.fill(srv.Client(), n, "a")
			stopped := make(chan error, 1)
			stop := func() { stopped <- h.stop() }
			if connected {
				go stop()
				natstest.Eventually(t, "the source stops", func() bool { return srv.Interest("a") == 0 })
			}
			srv.Stop()
			natstest.Eventually(t, "cut", func() bool { return !h.conn.Stats().Connected })
			if !connected {
				go stop()
			}
			srv.Restart()
			natstest.Eventually(t, "the connection is back", func() bool { return h.conn.Stats().Reconnects == 1 })
			if nc, _, err := h.conn.Attach(t.Context()); err != nil || nc.FlushTimeout(patience) != nil {
				t.Fatal("the server does not know by now what nats.go has subscribed to", err)
			}
			natstest.Eventually(t, "the server sends nothing more", func() bool { return srv.Interest("a") == 0 })
			close(h.hold)
			if err := <-stopped; err != nil {
				t.Fatal(err)
			}
			if got := h.count(); got != n {
				t.Errorf("%d messages passed on, want %d", got, n)
			}
		})
	}
}

func TestCoreStopsWithoutEverBeingConnected(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	srv.Stop()
	h := prepare(t, natstest.Config(srv.URL()), "", "a")
	h.run()
	if err := h.stop(); err != nil {
		t.Error(err)
	}
}
