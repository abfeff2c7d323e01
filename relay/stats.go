package relay

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Reasons for giving a message up; the label of natsrelay_dropped_total.
const (
	DropBufferFull = "buffer_full" // neither memory nor disk had room
	DropTooLarge   = "too_large"   // larger than the whole buffer
	DropMaxAge     = "max_age"     // older than buffer.max_age
	DropRefused    = "refused"     // the far side will never take it
	DropLoop       = "loop"        // it has passed this route before, or too many relays
	DropShutdown   = "shutdown"    // still in memory at the end, and no disk to put it on

	DropPurged = "purged" // somebody has emptied the disk: see Route.Purge

	DropMaxAttempts = DeadMaxAttempts     // as DropRefused and DropMaxAge: only of a route that keeps no dead letters
	DropDeadLetters = "dead_letters_full" // dead letters that gave way to newer ones
)

// DropReasons returns every reason for which a route itself gives a message up, or leaves one out as it is wanted. Sources have
// reasons of their own besides: see Upstream.Lost.
func DropReasons() []string {
	return []string{DropBufferFull, DropTooLarge, DropMaxAge, DropRefused, DropLoop, DropShutdown, DropPurged, DropMaxAttempts, DeadFilter, DropDeadLetters,
		DropUnanswered, DropFiltered, DropSample}
}

// counters are what a route counts; all are safe for concurrent use.
type counters struct {
	received, delivered, deliveredBytes atomic.Uint64
	attemptsOK, attemptsFailed          atomic.Uint64
	spilled                             atomic.Uint64
	corrupt                             atomic.Uint64
	filtered, sampled                   atomic.Uint64
}

func total(byReason map[string]uint64) uint64 {
	var n uint64
	for _, v := range byReason {
		n += v
	}
	return n
}

// drops counts what a route gives up, by reason, and logs it: the first of an episode at once,
// then once per dropLogEvery for as long as there were more, with how many.
type drops struct {
	log  zerolog.Logger
	what string // happened to them, for the log

	mu       sync.Mutex
	total    map[string]uint64
	unlogged map[string]uint64
	why      map[string]error       // the last of those
	pause    map[string]*time.Timer // reasons that were logged lately: until it fires, no more of them are
}

const dropLogEvery = time.Minute

func newDrops(log zerolog.Logger) *drops { return newDropsOf(log, "messages dropped") }

func newDropsOf(log zerolog.Logger, what string) *drops {
	return &drops{log: log, what: what, total: map[string]uint64{}, unlogged: map[string]uint64{}, why: map[string]error{}, pause: map[string]*time.Timer{}}
}

// add counts n messages given up for the reason. err says more, or is nil.
func (d *drops) add(reason string, n int, err error) {
	if n <= 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total[reason] += uint64(n)
	d.unlogged[reason] += uint64(n)
	d.why[reason] = err
	if d.pause[reason] == nil {
		d.flush(reason)
		d.pause[reason] = time.AfterFunc(dropLogEvery, func() { d.resume(reason) })
	}
}

// resume ends the pause after a line of the log, with another line if there is something to say.
func (d *drops) resume(reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.pause[reason] == nil: // closed
	case d.unlogged[reason] > 0:
		d.flush(reason)
		d.pause[reason].Reset(dropLogEvery)
	default:
		delete(d.pause, reason)
	}
}

func (d *drops) flush(reason string) {
	d.log.Warn().Err(d.why[reason]).Str("reason", reason).Uint64("messages", d.unlogged[reason]).Uint64("total", d.total[reason]).Msg(d.what)
	d.unlogged[reason] = 0
}

// close logs what has been counted and not yet logged.
func (d *drops) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for reason, timer := range d.pause {
		timer.Stop()
		delete(d.pause, reason)
	}
	for reason, n := range d.unlogged {
		if n > 0 {
			d.flush(reason)
		}
	}
}

func (d *drops) snapshot() map[string]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[string]uint64, len(d.total))
	for k, v := range d.total {
		out[k] = v
	}
	return out
}
