package relay

import (
	"context"
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

	mu    sync.Mutex
	route *Route // nil until it is open
	err   error  // why it is not
}

func newRunner(p RoutePlan, log zerolog.Logger) *runner {
	return &runner{plan: p, log: log.With().Str("route", p.Name).Logger(), stop: make(chan struct{}), done: make(chan struct{})}
}

// run returns when the route has ended, which halt or the end of ctx brings about.
func (u *runner) run(ctx context.Context, drain func() time.Duration) error {
	route := u.open(ctx)
	if route == nil {
		return nil
	}
	return route.run(ctx, u.stop, drain)
}

// open makes the route, or returns nil if the runner has to stop before that has succeeded.
func (u *runner) open(ctx context.Context) *Route {
	var lastLog time.Time
	for pause := openPauseMin; ; pause = min(2*pause, openPauseMax) {
		route, err := u.plan.Open()
		u.opened(route, err)
		if err == nil {
			return route
		}
		if time.Since(lastLog) >= repeatLog {
			lastLog = time.Now()
			u.log.Error().Err(err).Dur("next_in", pause).Msg("cannot open the route: it does nothing, the others run; trying again for ever")
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
	if route != nil && u.paused {
		route.Pause()
	}
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
