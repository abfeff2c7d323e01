package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// A Relay runs a set of routes. The routes do not know of each other: one that is blocked or full does not hold up another.
type Relay struct {
	drain  time.Duration
	log    zerolog.Logger
	routes []*Route
	stop   chan struct{}
	once   sync.Once
}

// New makes a relay of the routes. drain is how long a stop waits for deliveries.
func New(drain time.Duration, log zerolog.Logger, routes ...*Route) *Relay {
	return &Relay{drain: drain, log: log, routes: routes, stop: make(chan struct{})}
}

// Run runs the routes until Stop has been called and all have ended in order, or until ctx ends: then it waits for
// no delivery any more, and only puts what is in memory on disk. Call it once.
func (r *Relay) Run(ctx context.Context) error {
	errs := make([]error, len(r.routes))
	var running sync.WaitGroup
	for i, route := range r.routes {
		running.Go(func() { errs[i] = route.run(ctx, r.stop, r.drain) })
	}
	running.Wait()
	return errors.Join(errs...)
}

// Stop begins an orderly end: sources first, then deliveries for at most the drain time, then the rest goes to disk.
// It does not wait; Run returns when all is done. It may be called at any time, from any goroutine, more than once.
func (r *Relay) Stop() {
	r.once.Do(func() {
		r.log.Info().Dur("at_most", r.drain).Msg("stopping: sources first, then deliveries")
		close(r.stop)
	})
}
