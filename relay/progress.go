package relay

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// A route that looks alive and does nothing is worse than one that is dead. So each goroutine that moves messages says what it is
// about to do (its pulse), and the watch sees whether they get on. It looks at what is done, never at sockets: a sink that fails is
// progress, as long as it fails again and again.

// defaultStallAfter is how long one call to a sink, a store or the disk may take before the route counts as stalled.
const defaultStallAfter = 2 * time.Minute

// watchTicks is how often the watch looks in that time. It counts ticks, not time: a machine that was suspended has done nothing
// in the meantime, and that is nobody's fault.
const watchTicks = 8

// A pulse says what one goroutine of a route does, and that it still does it. Only that goroutine writes it.
type pulse struct {
	word atomic.Uint64 // number of steps so far << 8 | doing
}

// doing is what a goroutine is at.
type doing uint8

const (
	resting  doing = iota // waits for messages, for a gate, for the rate limit
	sending               // in Sink.Deliver
	burying               // in DeadLetters.Store
	settling              // telling the disk what is done
	writing               // to the disk
	reading               // from the disk
	syncing               // the disk
)

// String completes "it has been … for 2 minutes".
func (d doing) String() string {
	return [...]string{"waiting", "delivering to the sink", "storing dead letters", "marking messages as done on disk", "writing to disk", "reading from disk", "syncing the disk"}[d]
}

// at begins the next step.
func (p *pulse) at(d doing) {
	if p != nil {
		p.word.Store((p.word.Load()>>8+1)<<8 | uint64(d))
	}
}

type pulseKey struct{}

// withPulse lets those whom a lane calls find its pulse.
func withPulse(ctx context.Context, p *pulse) context.Context {
	return context.WithValue(ctx, pulseKey{}, p)
}

// pulseOf returns nil if there is none; a nil pulse takes everything.
func pulseOf(ctx context.Context) *pulse {
	p, _ := ctx.Value(pulseKey{}).(*pulse)
	return p
}

// Beat tells the route that a Deliver or a Store that consists of several steps has finished one of them, so that a slow one is not
// taken for one that is stuck. ctx is the one that was passed in.
func Beat(ctx context.Context) {
	if p := pulseOf(ctx); p != nil {
		p.at(doing(p.word.Load()))
	}
}

// A watch finds out whether a route gets on.
type watch struct {
	route *Route
	every time.Duration
	log   zerolog.Logger

	pulses []watched
	idle   int // ticks for which messages were ready, and nobody moved

	mu  sync.Mutex
	why string // it stalls; "" if it does not
}

// watched is a pulse, and what was last seen of it.
type watched struct {
	*pulse
	word  uint64
	ticks int // for which it has not changed
}

func newWatch(r *Route, after time.Duration, log zerolog.Logger) *watch {
	if after == 0 {
		after = defaultStallAfter
	}
	w := &watch{route: r, every: after / watchTicks, log: log}
	for _, l := range r.buffer.lanes {
		w.pulses = append(w.pulses, watched{pulse: &l.pulse})
	}
	w.pulses = append(w.pulses, watched{pulse: &r.buffer.keeper}, watched{pulse: &r.buffer.syncer})
	return w
}

// run looks until ctx ends.
func (w *watch) run(ctx context.Context) {
	ticker := time.NewTicker(w.every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			w.set(w.look())
		case <-ctx.Done():
			w.set("")
			return
		}
	}
}

// look takes the pulses and returns why the route stalls, "" if it does not.
func (w *watch) look() string {
	why, moved, busy := "", false, false
	for i := range w.pulses {
		p := &w.pulses[i]
		word := p.pulse.word.Load()
		at := doing(word)
		busy = busy || at != resting
		if word != p.word {
			p.word, p.ticks, moved = word, 0, true
			continue
		}
		if p.ticks++; p.ticks >= watchTicks && at != resting {
			why = fmt.Sprintf("it has been %s for %v", at, time.Duration(p.ticks)*w.every)
		}
	}
	if moved || busy || !w.route.shouldMove() {
		w.idle = 0
		return why
	}
	if w.idle++; w.idle >= watchTicks {
		return fmt.Sprintf("messages are ready, the sink works, and nothing has been delivered for %v", time.Duration(w.idle)*w.every)
	}
	return why
}

// shouldMove reports whether there is something to do and nothing that is a reason not to do it.
func (r *Route) shouldMove() bool {
	return !r.Paused() && r.health() == healthy && r.buffer.hasWork()
}

func (w *watch) set(why string) {
	w.mu.Lock()
	was := w.why
	w.why = why
	w.mu.Unlock()
	switch {
	case was == "" && why != "":
		w.log.Error().Str("why", why).Msg("the route has stalled")
	case was != "" && why == "":
		w.log.Info().Msg("the route moves again")
	}
}

// Stalled reports whether the route makes no progress without a reason to it, and in what words. A sink that fails, a pause, a full
// buffer and a source without connection are reasons; a call that does not return for RouteOptions.StallAfter is none, and neither
// are messages that nobody takes. It may be called at any time.
func (r *Route) Stalled() (why string, stalled bool) {
	r.watch.mu.Lock()
	defer r.watch.mu.Unlock()
	return r.watch.why, r.watch.why != ""
}
