package relay

import (
	"context"
	"reflect"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Bounds of the pause between two attempts to open a route. It is only its own machine that it bothers.
const (
	openPauseMin = time.Second
	openPauseMax = 30 * time.Second
)

// A runner keeps one route of a relay going: it opens it, for as long as that takes, and runs it until it is told to stop.
type runner struct {
	plan   RoutePlan
	paused bool // the route begins so, as the one before it ended
	log    zerolog.Logger
	stop   chan struct{} // closed by halt
	once   sync.Once
	done   chan struct{} // closed by the relay when run has returned
	left   *Intake       // of the route before, until this one has taken it over; nil: none. Run's own, and the relay's when that has returned

	mu      sync.Mutex
	route   *Route // nil until it is open
	err     error  // why it is not
	leaving bool   // the route is to leave its intake to its successor
}

func newRunner(p RoutePlan, left *Intake, log zerolog.Logger) *runner {
	return &runner{plan: p, left: left, log: log.With().Str("route", p.Name).Logger(), stop: make(chan struct{}), done: make(chan struct{})}
}

// run returns when the route has ended, which halt or the end of ctx brings about.
func (u *runner) run(ctx context.Context, drain func() time.Duration) error {
	route := u.open(ctx)
	if route == nil {
		return nil
	}
	u.left = nil
	return route.run(ctx, u.stop, drain)
}

// open makes the route, or returns nil if the runner has to stop before that has succeeded.
func (u *runner) open(ctx context.Context) *Route {
	var lastLog time.Time
	for pause := openPauseMin; ; pause = min(2*pause, openPauseMax) {
		route, err := u.plan.Open(u.left)
		u.opened(route, err)
		if err == nil {
			return route
		}
		if time.Since(lastLog) >= repeatLog {
			lastLog = time.Now()
			u.log.Error().Err(err).Dur("next_in", pause.Round(time.Millisecond)).Msg("cannot open the route: it does nothing, the others run; trying again for ever")
		}
		select {
		case <-time.After(pause):
		case <-u.stop:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (u *runner) opened(route *Route, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.route, u.err = route, err
	if intake := u.intake(); intake != nil {
		intake.park(u.leaving)
	}
	if route != nil && u.paused {
		route.Pause()
	}
}

// intake returns the open route's, nil if it has none. The lock is held.
func (u *runner) intake() *Intake {
	if u.route == nil {
		return nil
	}
	intake, _ := u.route.source.(*Intake)
	return intake
}

func (u *runner) isPaused() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.route == nil {
		return u.paused
	}
	return u.route.Paused()
}

// halt makes run return, when the route has ended in order.
func (u *runner) halt() { u.once.Do(func() { close(u.stop) }) }

// end halts, and waits.
func (u *runner) end() {
	u.halt()
	<-u.done
	u.abandon()
}

// leave ends the route, and returns its intake, which still runs, if that is what its successor needs.
func (u *runner) leave(successor RoutePlan) *Intake {
	if u.plan.Intake == nil || !reflect.DeepEqual(u.plan.Intake, successor.Intake) {
		u.end()
		return nil
	}
	u.mu.Lock()
	u.leaving = true // for a route that is just being opened, too
	if intake := u.intake(); intake != nil {
		intake.park(true)
	}
	u.mu.Unlock()
	u.halt()
	<-u.done
	u.mu.Lock()
	defer u.mu.Unlock()
	if intake := u.intake(); intake != nil {
		return intake
	}
	left := u.left // it was never opened
	u.left = nil
	return left
}

// abandon ends an intake that no route has taken over.
func (u *runner) abandon() {
	if u.left == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := u.left.abandon(ctx); err != nil {
		u.log.Warn().Err(err).Msg("a source could not be put in order at its end")
	}
	u.left = nil
}

func (u *runner) status() RouteStatus {
	u.mu.Lock()
	route, err := u.route, u.err
	u.mu.Unlock()
	s := RouteStatus{Name: u.plan.Name, Err: err, Stats: noStats()}
	if route != nil {
		s.Stats = route.Stats()
	}
	return s
}
