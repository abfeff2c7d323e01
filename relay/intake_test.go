package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// A floodSource hands over a message every millisecond until ctx ends, and counts how often it was run and closed.
type floodSource struct {
	mu                   sync.Mutex
	runs, closed, handed int
	refused              int
}

func (s *floodSource) Run(ctx context.Context, accept func(*Message) error) error {
	s.mu.Lock()
	s.runs++
	s.mu.Unlock()
	for ctx.Err() == nil {
		time.Sleep(time.Millisecond)
		s.mu.Lock()
		n := s.handed
		s.handed++
		s.mu.Unlock()
		if err := accept(&Message{Subject: "s.0", Data: fmt.Appendf(nil, "%06d", n), Time: time.Now()}); err != nil {
			s.mu.Lock()
			s.refused++
			s.mu.Unlock()
		}
	}
	return nil
}

func (s *floodSource) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

// flooded plans a route with an intake of the source.
func flooded(p *plannedRoute, source Source, settings, intake any) RoutePlan {
	return RoutePlan{Name: p.name, Settings: settings, Intake: intake, Open: func(left *Intake) (*Route, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.fail != nil {
			return nil, p.fail
		}
		if left == nil {
			left = NewIntake(source, func(context.Context) {})
		}
		o := RouteOptions{
			Name: p.name, Instance: "vm-17", Dir: p.dir,
			Buffer:   BufferOptions{Memory: 1 << 20, Disk: 1 << 30, Persist: PersistOutage, SpillAfter: 2 * time.Second, WhenFull: Block},
			Delivery: DeliveryOptions{Ordering: OrderSubject, InFlight: 8, RetryMin: 100 * time.Millisecond, RetryMax: time.Second},
		}
		return NewRoute(o, left, p.sink, zerolog.Nop())
	}}
}

// A route that changes leaves its source to its successor: the source runs on, and nothing is lost or out of order, even while the
// successor cannot be opened for a while.
func TestIntakeOutlivesRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, source := newPlannedRoute(t, "orders"), &floodSource{}
		p.sink.latency = 3 * time.Millisecond
		r := Start(t.Context(), planned(flooded(p, source, 0, "same")), zerolog.Nop())
		for i := range 20 {
			time.Sleep(time.Second)
			r.Apply(planned(flooded(p, source, i+1, "same")))
		}
		p.failWith(errors.New("permission denied"))
		r.Apply(planned(flooded(p, source, "broken", "same")))
		r.Apply(planned(flooded(p, source, "still broken", "same")))
		time.Sleep(10 * time.Second)
		p.failWith(nil)
		time.Sleep(time.Minute)
		end(t, r)
		if source.runs != 1 || source.closed != 1 || source.refused != 0 {
			t.Errorf("the source ran %d times, was closed %d times, and refused %d messages", source.runs, source.closed, source.refused)
		}
		if source.handed < 20_000 {
			t.Errorf("only %d messages", source.handed)
		}
		checkArrivals(t, p.sink.arrived, source.handed, OrderSubject)
	})
}

// Changes that come one right after the other, before the route has begun to run, or to be opened, leave the source to the last of them.
func TestIntakeOutlivesManyRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, source := newPlannedRoute(t, "orders"), &floodSource{}
		r := Start(t.Context(), planned(flooded(p, source, 0, "same")), zerolog.Nop())
		time.Sleep(time.Second)
		for i := range 300 {
			r.Apply(planned(flooded(p, source, i+1, "same")))
		}
		time.Sleep(time.Second)
		end(t, r)
		if source.runs != 1 || source.closed != 1 || source.refused != 0 {
			t.Errorf("the source ran %d times, was closed %d times, and refused %d messages", source.runs, source.closed, source.refused)
		}
	})
}

// Where the source changes, too, or no successor comes, it ends in order.
func TestIntakeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, source := newPlannedRoute(t, "orders"), &floodSource{}
		r := Start(t.Context(), planned(flooded(p, source, 1, "one")), zerolog.Nop())
		time.Sleep(time.Second)
		r.Apply(planned(flooded(p, source, 2, "other")))
		time.Sleep(time.Second)
		p.failWith(errors.New("permission denied"))
		r.Apply(planned(flooded(p, source, 3, "other")))
		time.Sleep(time.Second)
		r.Apply(planned())
		if source.runs != 2 || source.closed != 2 {
			t.Errorf("the source ran %d times and was closed %d times", source.runs, source.closed)
		}
		end(t, r)
	})
}

// A source whose route cannot be opened ends in order with the relay, too: what it has is refused, and counted.
func TestIntakeEndsWithTheRelay(t *testing.T) {
	for name, applying := range map[string]bool{"alone": false, "while a change is under way": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, source := newPlannedRoute(t, "orders"), &floodSource{}
				r := Start(t.Context(), planned(flooded(p, source, 0, "same")), zerolog.Nop())
				time.Sleep(time.Second)
				p.failWith(errors.New("permission denied"))
				r.Apply(planned(flooded(p, source, 1, "same")))
				time.Sleep(time.Second)
				var apply sync.WaitGroup
				if applying {
					apply.Go(func() { r.Apply(planned(flooded(p, source, 2, "same"))) })
				}
				end(t, r)
				apply.Wait()
				if source.runs != 1 || source.closed != 1 || len(p.sink.arrived)+source.refused != source.handed {
					t.Errorf("the source ran %d times and was closed %d times; of %d messages, %d arrived and %d were refused",
						source.runs, source.closed, source.handed, len(p.sink.arrived), source.refused)
				}
			})
		})
	}
}

// A stop that comes while a route is being changed: what its source has meanwhile goes to disk, though the successor has no time to deliver it.
func TestStopTakesWhatAnIntakeHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, source := newPlannedRoute(t, "orders"), &lateSource{early: 3, messages: 1000}
		p.sink.latency = 10 * time.Second
		r := Start(t.Context(), planned(flooded(p, source, 0, "same")), zerolog.Nop())
		synctest.Wait()
		var apply sync.WaitGroup
		apply.Go(func() { r.Apply(planned(flooded(p, source, 1, "same"))) })
		time.Sleep(time.Second)
		r.Stop()
		apply.Wait()
		end(t, r)
		if source.refused > 0 {
			t.Errorf("%d of %d messages were refused", source.refused, source.messages)
		}
		p.sink.latency = 0
		r = Start(t.Context(), planned(flooded(p, &lateSource{}, 2, "same")), zerolog.Nop())
		time.Sleep(time.Minute)
		end(t, r)
		if n := len(p.sink.arrived); n != 1003 {
			t.Errorf("%d messages arrived, want 1,003", n)
		}
	})
}

// A change that comes while the relay stops, and the route waits for what its source has, leaves that stop alone.
func TestApplyWhileAnIntakeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Buffer.Memory, o.Buffer.WhenFull = 64<<10, Block
		source, closed := &lateSource{messages: 1000}, 0
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, latency: time.Minute, answer: deliverAll}
		plan := func(settings int) Plan {
			return planned(RoutePlan{Name: o.Name, Settings: settings, Intake: "same", Open: func(*Intake) (*Route, error) {
				return NewRoute(o, NewIntake(source, func(context.Context) { closed++ }), sink, zerolog.Nop())
			}})
		}
		r := Start(t.Context(), plan(0), zerolog.Nop())
		synctest.Wait()
		route := r.Route(o.Name)
		r.Stop()
		time.Sleep(5 * time.Second) // the source waits for room
		r.Apply(plan(1))
		if err := r.Wait(); err != nil {
			t.Errorf("Wait: %v", err)
		}
		dropped := int(route.Stats().Dropped[DropShutdown])
		if source.refused == 0 || source.refused+dropped != source.messages || closed != 1 {
			t.Errorf("%d messages were refused and %d dropped, of %d; the source was closed %d times", source.refused, dropped, source.messages, closed)
		}
	})
}
