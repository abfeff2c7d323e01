package relay

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// A plannedRoute is a route of a relay that a test changes as it runs: its sink and its files outlive the Routes made of it.
type plannedRoute struct {
	name string
	dir  string
	sink *scriptSink

	mu     sync.Mutex
	source *pushSource // of the Route opened last
	opened int
	closed int
	fail   error // why it cannot be opened
}

func newPlannedRoute(t *testing.T, name string) *plannedRoute {
	return &plannedRoute{
		name: name, dir: filepath.Join(t.TempDir(), name),
		sink: &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 1}, answer: deliverAll},
	}
}

// plan returns the plan of the route with the given settings.
func (p *plannedRoute) plan(settings any) RoutePlan {
	return RoutePlan{Name: p.name, Settings: settings, Open: p.open}
}

func (p *plannedRoute) open(*Intake) (*Route, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return nil, p.fail
	}
	p.source = newPushSource()
	p.opened++
	return NewRoute(RouteOptions{
		Name: p.name, Instance: "vm-17", Dir: p.dir,
		Buffer:   BufferOptions{Memory: 64 << 20, Disk: 1 << 30, Persist: PersistOutage, SpillAfter: 2 * time.Second},
		Delivery: DeliveryOptions{Ordering: OrderSubject, InFlight: 8, RetryMin: 100 * time.Millisecond, RetryMax: time.Second},
		Close: func(context.Context) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.closed++
		},
	}, p.source, p.sink, zerolog.Nop())
}

func (p *plannedRoute) failWith(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

// counts returns how often the route was opened and closed.
func (p *plannedRoute) counts() [2]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return [2]int{p.opened, p.closed}
}

// accept returns the accept of the Route opened last.
func (p *plannedRoute) accept() func(*Message) error {
	synctest.Wait()
	p.mu.Lock()
	source := p.source
	p.mu.Unlock()
	return <-source.accept
}

func planned(routes ...RoutePlan) Plan { return Plan{Drain: 25 * time.Second, Routes: routes} }

// end stops the relay and expects all to be in order.
func end(t *testing.T, r *Relay) {
	t.Helper()
	r.Stop()
	if err := r.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

// Apply leaves alone what has not changed, starts what has changed again on its backlog, and starts and ends the rest.
func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		same, changed, added, removed := newPlannedRoute(t, "same"), newPlannedRoute(t, "changed"), newPlannedRoute(t, "added"), newPlannedRoute(t, "removed")
		r := Start(t.Context(), planned(same.plan(1), changed.plan(1), removed.plan(1)), zerolog.Nop())
		synctest.Wait()
		sink := changed.sink
		sink.answer = func([]*Message, []Outcome) error { return errDown }
		publish(t, changed.accept(), 100, 3)
		time.Sleep(10 * time.Second) // until it spills

		got := r.Apply(planned(same.plan(1), changed.plan(2), added.plan(1)))
		want := Changes{Added: []string{"added"}, Changed: []string{"changed"}, Removed: []string{"removed"}, Unchanged: []string{"same"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		synctest.Wait()
		for p, want := range map[*plannedRoute][2]int{same: {1, 0}, changed: {2, 1}, added: {1, 0}, removed: {1, 1}} {
			if got := p.counts(); got != want {
				t.Errorf("%s was opened and closed %v times, want %v", p.name, got, want)
			}
		}
		var names []string
		for _, s := range r.Status() {
			names = append(names, fmt.Sprint(s.Name, " ", s.Stats.State))
		}
		if diff := cmp.Diff([]string{"added flowing", "changed retrying", "same flowing"}, names); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}
		sink.mu.Lock()
		sink.answer = deliverAll
		sink.mu.Unlock()
		time.Sleep(time.Minute)
		end(t, r)
		checkArrivals(t, sink.arrived, 100, OrderSubject)
	})
}

// A route that cannot be opened does not keep the others from running. It is tried again until it can.
func TestRouteCannotBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good, bad := newPlannedRoute(t, "good"), newPlannedRoute(t, "bad")
		broken := errors.New("permission denied")
		bad.failWith(broken)
		r := Start(t.Context(), planned(good.plan(1), bad.plan(1)), zerolog.Nop())
		publish(t, good.accept(), 10, 1)
		time.Sleep(time.Hour)
		if s := r.Status()[0]; s.Name != "bad" || s.Err != broken || s.Stats.State != StateStarting {
			t.Errorf("status %+v", s)
		}

		bad.failWith(nil)
		time.Sleep(openPauseMax)
		if s := r.Status()[0]; s.Err != nil || s.Stats.State != StateFlowing {
			t.Errorf("status %+v", s)
		}
		publish(t, bad.accept(), 10, 1)
		end(t, r)
		checkArrivals(t, good.sink.arrived, 10, OrderSubject)
		checkArrivals(t, bad.sink.arrived, 10, OrderSubject)
	})
}

// A route that cannot be opened can be removed, changed, and stopped.
func TestRouteThatCannotBeOpenedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := newPlannedRoute(t, "bad")
		bad.failWith(errors.New("permission denied"))
		r := Start(t.Context(), planned(bad.plan(1)), zerolog.Nop())
		time.Sleep(time.Hour)
		r.Apply(planned(bad.plan(2)))
		r.Apply(planned())
		if s := r.Status(); len(s) > 0 {
			t.Errorf("status %+v", s)
		}
		r.Apply(planned(bad.plan(3)))
		end(t, r)
	})
}

// Stopping the relay ends a route that is just being changed, and nothing is started any more.
func TestStopWhileApplying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlannedRoute(t, "orders")
		p.sink.latency = time.Second
		r := Start(t.Context(), planned(p.plan(1)), zerolog.Nop())
		publish(t, p.accept(), 1000, 1) // for 100 s; the drain time is 25 s
		applied := make(chan struct{})
		go func() {
			defer close(applied)
			r.Apply(planned(p.plan(2)))
		}()
		time.Sleep(5 * time.Second)
		end(t, r)
		<-applied
		if got := p.counts(); got != [2]int{1, 1} {
			t.Errorf("opened and closed %v times", got)
		}
		r.Apply(planned(p.plan(3)))
		if got := p.counts(); got != [2]int{1, 1} {
			t.Errorf("a stopped relay has started a route: opened and closed %v times", got)
		}
	})
}

// What a route cannot put in order at its end is the relay's error if it ends, too.
func TestWaitReturnsErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlannedRoute(t, "orders")
		p.sink.closeErr = errors.New("the far side is gone")
		r := Start(t.Context(), planned(p.plan(1)), zerolog.Nop())
		synctest.Wait()
		r.Apply(planned()) // its error is logged, and is not the relay's
		r.Apply(planned(p.plan(1)))
		synctest.Wait()
		r.Stop()
		if err := r.Wait(); !errors.Is(err, p.sink.closeErr) || err.Error() != "route orders: close: the far side is gone" {
			t.Errorf("Wait: %v", err)
		}
	})
}
