package relay

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// While a route is paused nothing is delivered, what comes is buffered and goes to disk, and what was under way finishes. Then
// all of it is delivered, in order.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Buffer.Disk = 1 << 30
		o.Delivery.Ordering = OrderStrict
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 8}, latency: 100 * time.Millisecond, answer: deliverAll}
		route, accept, stop := start(t, o, sink)
		publish(t, accept, 5, 1)
		time.Sleep(50 * time.Millisecond)
		route.Pause()
		route.Pause()
		time.Sleep(time.Second)
		under := sink.count()
		for i := range 1000 {
			if err := accept(&Message{Subject: "s.0", Data: []byte{byte('1' + i/100)}, ID: "x", Time: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		s := route.Stats()
		if under != 1 || sink.count() != under || s.State != StatePaused || !s.Paused || s.Spilled == 0 {
			t.Errorf("%d of those under way arrived, %d in all, stats %+v; want one, and paused, and on disk", under, sink.count(), s)
		}
		if s.OldestAge < time.Minute {
			t.Errorf("the oldest is %v old", s.OldestAge)
		}
		route.Resume()
		time.Sleep(10 * time.Minute)
		if s := route.Stats(); s.State != StateFlowing || s.Delivered != 1005 || s.OldestAge != 0 {
			t.Errorf("after the pause: %+v", s)
		}
		stop()
	})
}

// A route that is paused ends in order, with what it has on disk, and starts without the pause.
func TestPauseEndsWithTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Buffer.Disk = 1 << 30
		sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 8}, answer: deliverAll}
		route, accept, stop := start(t, o, sink)
		route.Pause()
		publish(t, accept, 100, 3)
		began := time.Now()
		stop()
		if s := route.Stats(); s.DiskMessages != 100 || time.Since(began) > time.Second {
			t.Errorf("%d on disk after %v, want 100 at once", s.DiskMessages, time.Since(began))
		}
		_, _, stop = start(t, o, sink)
		time.Sleep(time.Minute)
		stop()
		if len(sink.arrived) != 100 {
			t.Errorf("%d arrived after the restart", len(sink.arrived))
		}
	})
}

// A sink that fails is not probed during a pause.
func TestPauseStopsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int64
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, answer: func([]*Message, []Outcome) error { attempts.Add(1); return errDown }}
		route, accept, stop := start(t, testOptions(t), sink)
		publish(t, accept, 10, 1)
		time.Sleep(time.Minute)
		route.Pause()
		time.Sleep(time.Second)
		before := attempts.Load()
		time.Sleep(time.Hour)
		if n := attempts.Load(); n != before || before == 0 {
			t.Errorf("%d attempts before the pause, %d during it", before, n-before)
		}
		if s := route.Stats(); !errors.Is(s.SinkTrouble, errDown) {
			t.Errorf("the sink's trouble is %v", s.SinkTrouble)
		}
		route.Resume()
		time.Sleep(time.Minute)
		if attempts.Load() == before {
			t.Error("no attempt after the pause")
		}
		stop()
	})
}

// upstreamSource is a source that can tell how it stands.
type upstreamSource struct {
	*pushSource
	trouble error
}

func (s *upstreamSource) Trouble() error          { return s.trouble }
func (s *upstreamSource) Pending() (uint64, bool) { return 7, true }
func (s *upstreamSource) Lost() map[string]uint64 {
	return map[string]uint64{"slow_consumer": 3, DropShutdown: 1}
}
func (s *upstreamSource) Run(ctx context.Context, accept func(*Message) error) error {
	return s.pushSource.Run(ctx, accept)
}

// What a source says of itself is part of the route's state and counts.
func TestUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &upstreamSource{pushSource: newPushSource()}
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, answer: deliverAll}
		route, _, stop := startWith(t, testOptions(t), source, source.pushSource, sink)
		for _, tc := range []struct {
			trouble error
			want    State
		}{
			{ErrStarting, StateStarting},
			{errDown, StateFlowing},
			{&Fault{Err: errDown, Blocked: true}, StateBlocked},
			{nil, StateFlowing},
		} {
			source.trouble = tc.trouble
			if s := route.Stats(); s.State != tc.want || !errors.Is(s.SourceTrouble, tc.trouble) {
				t.Errorf("state %s, trouble %v; want %s", s.State, s.SourceTrouble, tc.want)
			}
		}
		s := route.Stats()
		if s.Pending != 7 || !s.PendingKnown || s.Dropped["slow_consumer"] != 3 || s.Dropped[DropShutdown] != 1 || s.DroppedTotal() != 4 {
			t.Errorf("stats %+v", s)
		}
		stop()
	})
}

// count returns how many messages have arrived.
func (s *scriptSink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.arrived)
}

// A pause outlives a change of the configuration: whoever has paused the route may be just mending it.
func TestPauseOutlivesAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlannedRoute(t, "orders")
		r := Start(t.Context(), Plan{Drain: time.Second, Routes: []RoutePlan{p.plan(1)}}, zerolog.Nop())
		p.accept()
		r.Route("orders").Pause()
		for settings := range 3 {
			r.Apply(Plan{Drain: time.Second, Routes: []RoutePlan{p.plan(10 + settings)}})
			publish(t, p.accept(), 10, 1)
			time.Sleep(time.Minute)
			if !r.Route("orders").Paused() || p.sink.count() != 0 {
				t.Errorf("after reload %d: paused %t, %d delivered", settings, r.Route("orders").Paused(), p.sink.count())
			}
		}
		r.Route("orders").Resume()
		r.Apply(Plan{Drain: time.Second, Routes: []RoutePlan{p.plan(20)}})
		time.Sleep(time.Minute)
		if r.Route("orders").Paused() || p.sink.count() != 30 {
			t.Errorf("resumed and reloaded: %d delivered, want 30", p.sink.count())
		}
		r.Stop()
		if err := r.Wait(); err != nil {
			t.Error(err)
		}
	})
}
