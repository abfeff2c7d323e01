package relay

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// A lateSource passes on what it has only when it is told to stop, and slowly: each message takes it a millisecond.
type lateSource struct {
	early    int // messages that it passes on at once
	messages int
	refused  int   // when Run has returned
	closed   error // the end of its time, when Close was called
}

func (s *lateSource) Run(ctx context.Context, accept func(*Message) error) error {
	for range s.early {
		_ = accept(&Message{Subject: "early", Time: time.Now()})
	}
	<-ctx.Done()
	for i := range s.messages {
		time.Sleep(time.Millisecond)
		if err := accept(&Message{Subject: "late", Data: fmt.Appendf(nil, "%06d", i), ID: fmt.Sprint(i), Time: time.Now()}); errors.Is(err, ErrStopped) {
			s.refused++
		}
	}
	return nil
}

func (s *lateSource) Close(ctx context.Context) error {
	s.closed = ctx.Err()
	return nil
}

// What a source has when its relay is to stop at once, or has no time for deliveries, goes to disk. Nobody else may have it.
func TestStopTakesWhatTheSourceHas(t *testing.T) {
	const n = 1000
	for name, c := range map[string]struct {
		drain time.Duration
		cut   bool
	}{"a second signal": {drain: 25 * time.Second, cut: true}, "no time for deliveries": {}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(t)
				o.Buffer.Disk = 1 << 30
				source := &lateSource{messages: n}
				sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, latency: time.Minute, answer: deliverAll}
				route, took := stopOnce(t, o, source, sink, c.drain, c.cut)
				if s := route.Stats(); s.DiskMessages != n || source.refused > 0 {
					t.Errorf("%d of %d messages are on disk, %d were refused", s.DiskMessages, n, source.refused)
				}
				if source.closed != nil {
					t.Errorf("there was no time for last words: %v", source.closed)
				}
				if took > closeTimeout {
					t.Errorf("the stop took %v", took)
				}
			})
		})
	}
}

// A source is not waited for once there is room for nothing that it has.
func TestStopWaitsForNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Buffer.Memory, o.Buffer.WhenFull = 64<<10, Block
		source := &lateSource{messages: 1000}
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, latency: time.Minute, answer: deliverAll}
		route, took := stopOnce(t, o, source, sink, 25*time.Second, true)
		if dropped := int(route.Stats().Dropped[DropShutdown]); source.refused == 0 || source.refused+dropped != source.messages {
			t.Errorf("%d messages were refused and %d dropped, of %d", source.refused, dropped, source.messages)
		}
		if took > 2*time.Second {
			t.Errorf("the stop took %v", took)
		}
	})
}

// stopOnce runs a relay of one route, stops it, cuts it as a second signal does if that is wanted, and returns how long it took to end.
func stopOnce(t *testing.T, o RouteOptions, source Source, sink Sink, drain time.Duration, cut bool) (*Route, time.Duration) {
	t.Helper()
	route, err := NewRoute(o, source, sink, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, second := context.WithCancel(t.Context())
	defer second()
	r := Start(ctx, planOf(drain, route), zerolog.Nop())
	synctest.Wait()
	began := time.Now()
	r.Stop()
	if cut {
		second()
	}
	if err := r.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
	return route, time.Since(began)
}
