package relay

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// A Plan is what a relay is to run.
type Plan struct {
	Drain  time.Duration // how long a route that has to end waits for deliveries
	Routes []RoutePlan   // each with a name of its own
}

// A RoutePlan is one route of a plan.
type RoutePlan struct {
	Name string
	// Settings is all that the route is made from, its connections and secrets included. Plans of one name with deeply equal Settings
	// are of the same route.
	Settings any
	// Intake is all that the route's Intake is made from; nil: it has none. A route that changes leaves its Intake to its successor if
	// their plans have deeply equal ones.
	Intake any
	// Open makes the route, on the Intake of the one before it unless that is nil. While that fails it is called again and again, with pauses; never twice at a time, and never before
	// the route of that name before it has closed its files.
	Open func(left *Intake) (*Route, error)
}

// A Relay runs a set of routes, which may change meanwhile. The routes do not know of each other: one that is blocked, full,
// or cannot be opened does not hold up another.
type Relay struct {
	ctx     context.Context
	log     zerolog.Logger
	drain   atomic.Int64 // nanoseconds
	running sync.WaitGroup

	applying sync.Mutex // one Apply at a time; taken before mu

	mu      sync.Mutex
	runners map[string]*runner // by route
	stopped bool               // nothing is started any more
	stop    chan struct{}      // closed by Stop
	err     error              // of the routes that have ended because the relay does
}

// Start runs the routes of the plan until Stop has been called and all have ended in order, or until ctx ends: then they wait for
// no delivery any more, and only put what is in memory on disk. Wait waits for their end.
func Start(ctx context.Context, plan Plan, log zerolog.Logger) *Relay {
	r := &Relay{ctx: ctx, log: log, runners: map[string]*runner{}, stop: make(chan struct{})}
	r.drain.Store(int64(plan.Drain))
	for _, p := range plan.Routes {
		r.start(p, nil)
	}
	return r
}

// Stop begins an orderly end: sources first, then deliveries for at most the drain time, then the rest goes to disk.
// It does not wait. It may be called at any time, from any goroutine, more than once.
func (r *Relay) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return
	}
	r.stopped = true
	close(r.stop)
	r.log.Info().Dur("at_most", r.drainTime()).Msg("stopping: sources first, then deliveries")
	for _, u := range r.runners {
		u.halt()
	}
}

// Stopping reports whether Stop has been called.
func (r *Relay) Stopping() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped
}

// Wait returns when the relay has been stopped, or its context has ended, and all routes have. The error says what
// could not be put in order.
func (r *Relay) Wait() error {
	select {
	case <-r.stop:
	case <-r.ctx.Done():
	}
	r.mu.Lock()
	r.stopped = true // an Apply must not start another one while running.Wait waits
	r.mu.Unlock()
	r.running.Wait()
	r.abandonAll()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// abandonAll ends what was left to routes that could not be opened. All routes have ended.
func (r *Relay) abandonAll() {
	r.applying.Lock() // an Apply may be passing one on
	defer r.applying.Unlock()
	for _, u := range r.snapshot() {
		u.abandon()
	}
}

// Changes are the names of a plan's routes, by what Apply had to do about them.
type Changes struct{ Added, Changed, Removed, Unchanged []string }

// Apply makes the routes those of the plan. A route that is in it as it was goes on and notices nothing. One that has
// changed ends in order and starts again on its backlog; one that is not in it any more ends in order, and its backlog stays on disk.
// Each does so by itself: none waits for another. Apply returns when all that had to end has, which the drain time bounds,
// and all that is new has been started. A relay that stops applies nothing: a route that was just being changed only puts on disk what its source has.
func (r *Relay) Apply(plan Plan) Changes {
	r.applying.Lock()
	defer r.applying.Unlock()
	r.drain.Store(int64(plan.Drain))

	var c Changes
	var ending sync.WaitGroup
	gone := r.snapshot()
	for _, p := range plan.Routes {
		old, ok := gone[p.Name]
		delete(gone, p.Name)
		switch {
		case !ok:
			c.Added = append(c.Added, p.Name)
			r.start(p, nil)
		case reflect.DeepEqual(old.plan.Settings, p.Settings):
			c.Unchanged = append(c.Unchanged, p.Name)
		default:
			c.Changed = append(c.Changed, p.Name)
			ending.Go(func() { r.start(p, old.leave(p)) })
		}
	}
	c.Removed = slices.Sorted(maps.Keys(gone))
	for _, old := range gone {
		ending.Go(func() {
			old.end()
			r.remove(old)
		})
	}
	ending.Wait()
	return c
}

// RouteStatus is how a route of a relay stands.
type RouteStatus struct {
	Name  string
	Stats RouteStats
	Err   error // why the route cannot be opened at present; nil: it is open
}

// Status returns how the routes stand, in the order of their names.
func (r *Relay) Status() []RouteStatus {
	runners := r.snapshot()
	all := make([]RouteStatus, 0, len(runners))
	for _, name := range slices.Sorted(maps.Keys(runners)) {
		all = append(all, runners[name].status())
	}
	return all
}

// Route returns the route of that name, nil if there is none, or if it is not open.
func (r *Relay) Route(name string) *Route {
	u := r.snapshot()[name]
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.route
}

// start runs a route, in place of the one of that name that has ended and, perhaps, left its intake.
func (r *Relay) start(p RoutePlan, left *Intake) {
	u := newRunner(p, left, r.log)
	if r.launch(u) {
		return
	}
	if left != nil && left.running() {
		r.store(u)
	}
	u.abandon()
}

// store runs a route, though the relay has begun to stop, for what its intake has: nobody else can put it on disk.
func (r *Relay) store(u *runner) {
	u.halt()
	r.ended(u.run(r.ctx, func() time.Duration { return min(r.drainTime(), closeTimeout) }))
}

// launch runs a runner, unless the relay has begun to stop.
func (r *Relay) launch(u *runner) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	if old := r.runners[u.plan.Name]; old != nil {
		u.paused = old.isPaused() // whoever has paused it may be just mending it
	}
	r.runners[u.plan.Name] = u
	r.running.Go(func() {
		err := u.run(r.ctx, r.drainTime)
		r.ended(err)
		close(u.done)
	})
	return true
}

// ended keeps what went wrong at a route's end for Wait, or logs it if the relay goes on.
func (r *Relay) ended(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
	case r.stopped || r.ctx.Err() != nil:
		r.err = errors.Join(r.err, err)
	default:
		r.log.Error().Err(err).Msg("a route could not be put in order at its end, the others go on")
	}
}

func (r *Relay) remove(u *runner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.runners, u.plan.Name)
}

func (r *Relay) snapshot() map[string]*runner {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.runners)
}

func (r *Relay) drainTime() time.Duration { return time.Duration(r.drain.Load()) }
