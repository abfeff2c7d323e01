package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// A gate stands before one endpoint and decides when it may be tried. While the endpoint works, lanes pass freely.
// A failure closes it for a while: exponential backoff with full jitter, or longer if the endpoint asked for it. Then one lane
// at a time passes as a probe; its success opens the gate again, narrow at first (slow start: every success lets one more in).
//
// The backoff is the endpoint's, not a message's: a dead endpoint sees one request per pause, however many messages wait.
type gate struct {
	what     string // the endpoint is called in the log
	min, max time.Duration
	lanes    int
	log      zerolog.Logger
	onChange func(health) // called in order, under the gate's lock: it must not call the gate

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced whenever the waiting lanes should look again
	waiting  bool          // somebody waits on changed
	stopped  bool
	paused   bool // nobody passes until it is over
	inside   int  // lanes that have passed and not yet reported
	limit    int  // how many may be inside while open
	closed   bool
	probing  bool      // a probe is inside
	episode  uint64    // counts closings, so that a straggler's failure is not taken for a new one
	attempts int       // failures in a row
	reopen   time.Time // when the next probe may pass
	since    time.Time // when the endpoint began to fail
	health   health
	why      error // the endpoint's last failure, while it fails
	held     int   // failures not logged since the last one that was
	lastLog  time.Time
}

// health is what a gate knows of its endpoint.
type health uint8

const (
	healthy health = iota
	failing        // time may mend it
	blocked        // somebody has to mend it
)

// repeatLog is how often a failure that goes on is logged again.
const repeatLog = time.Minute

// maxRetryAfter caps an endpoint's Retry-After, in multiples of the longest own pause.
const maxRetryAfter = 10

var errGateStopped = errors.New("the route is stopping")

// A pass is a lane's permission for one attempt; it must be given back by report or release.
type pass struct {
	episode uint64
	probe   bool
}

func newGate(o DeliveryOptions, lanes int, log zerolog.Logger, onChange func(health)) *gate {
	return &gate{what: "sink", min: o.RetryMin, max: o.RetryMax, lanes: lanes, limit: lanes, log: log, onChange: onChange, changed: make(chan struct{})}
}

// enter waits until the caller may try the endpoint.
func (g *gate) enter(ctx context.Context) (pass, error) {
	for {
		p, wait, err := g.tryEnter()
		if err != nil || wait == nil {
			return p, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return pass{}, ctx.Err()
		}
	}
}

// tryEnter returns a pass, or a channel to wait on before trying again.
func (g *gate) tryEnter() (pass, <-chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.stopped:
		return pass{}, nil, errGateStopped
	case g.paused:
	case !g.closed && g.inside < g.limit:
		g.inside++
		return pass{episode: g.episode}, nil, nil
	case g.closed && !g.probing && !time.Now().Before(g.reopen):
		g.inside++
		g.probing = true
		return pass{episode: g.episode, probe: true}, nil, nil
	}
	g.waiting = true
	return pass{}, g.changed, nil
}

// isOpen reports whether a lane that has passed may go on with what others would have to pass for.
func (g *gate) isOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.stopped && !g.paused && !g.closed
}

// report gives a pass back with the result of the attempt.
func (g *gate) report(p pass, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leave(p)
	switch {
	case err == nil && (p.probe || !g.closed):
		g.succeeded()
	case err != nil && (p.probe || p.episode == g.episode):
		g.failed(err)
	}
	g.wake()
}

// release gives a pass back without a verdict: the attempt was cut short by us.
func (g *gate) release(p pass) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leave(p)
	g.wake()
}

func (g *gate) leave(p pass) {
	g.inside--
	if p.probe {
		g.probing = false
	}
}

func (g *gate) succeeded() {
	if !g.closed {
		g.limit = min(g.limit+1, g.lanes)
		return
	}
	g.closed, g.attempts, g.limit, g.why = false, 0, 1, nil
	g.log.Info().Dur("after", time.Since(g.since).Round(time.Millisecond)).Int("held_back", g.held).Msg(g.what + " works again")
	g.held = 0
	g.setHealth(healthy)
}

func (g *gate) failed(err error) {
	now := time.Now()
	if !g.closed {
		g.closed, g.since = true, now
	}
	g.why = err
	g.episode++
	g.attempts++
	pause := g.pause(err)
	g.reopen = now.Add(pause)
	time.AfterFunc(pause, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.wake()
	})
	g.logFailure(err, pause, now)

	var fault *Fault
	if errors.As(err, &fault) && fault.Blocked {
		g.setHealth(blocked)
	} else {
		g.setHealth(failing)
	}
}

// pause draws the time until the next probe: full jitter over an exponentially growing interval
// (AWS Architecture Blog, "Exponential Backoff and Jitter"), and not less than what the endpoint asked for.
func (g *gate) pause(err error) time.Duration {
	ceiling := g.max
	if shift := g.attempts - 1; g.min <= g.max>>shift { // the other way round it would overflow
		ceiling = g.min << shift
	}
	pause := rand.N(ceiling + 1)
	var fault *Fault
	if errors.As(err, &fault) {
		pause = max(pause, min(fault.RetryAfter, maxRetryAfter*g.max))
	}
	return pause
}

// logFailure logs the first failure of an episode and each change of its kind at once, repeats once per repeatLog:
// an outage of days must not fill the disk with its log.
func (g *gate) logFailure(err error, pause time.Duration, now time.Time) {
	var fault *Fault
	kind := failing
	if errors.As(err, &fault) && fault.Blocked {
		kind = blocked
	}
	if kind == g.health && now.Sub(g.lastLog) < repeatLog {
		g.held++
		return
	}
	msg := g.what + " fails, sending again"
	if kind == blocked {
		msg = g.what + " is blocked and needs somebody to mend it; nothing is dropped, sending again"
	}
	g.log.Warn().Err(err).Int("attempts", g.attempts).Int("held_back", g.held).Dur("next_in", pause.Round(time.Millisecond)).Msg(msg)
	g.held, g.lastLog = 0, now
}

func (g *gate) setHealth(h health) {
	if h != g.health {
		g.health = h
		g.onChange(h)
	}
}

// current returns what the gate knows of its endpoint now.
func (g *gate) current() health {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.health
}

// trouble returns why the endpoint fails, nil if it does not.
func (g *gate) trouble() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.why == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", g.what, g.why)
}

func (g *gate) setPaused(paused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = paused
	g.wake()
}

func (g *gate) isPaused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused
}

// stop makes every enter, now and later, return errGateStopped.
func (g *gate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	g.wake()
}

// wake lets the waiting lanes look again. The lock is held.
func (g *gate) wake() {
	if g.waiting {
		close(g.changed)
		g.changed, g.waiting = make(chan struct{}), false
	}
}

// downs joins what several gates know of their endpoints: it tells when the first of them begins to fail, and when the last
// of them works again.
type downs struct {
	tell func(down bool)

	mu sync.Mutex
	n  int // gates whose endpoint fails
}

// watch returns an onChange for one more gate.
func (d *downs) watch() func(health) {
	was := healthy
	return func(h health) {
		d.mu.Lock()
		defer d.mu.Unlock()
		switch {
		case was == healthy && h != healthy:
			d.n++
		case was != healthy && h == healthy:
			d.n--
		}
		was = h
		d.tell(d.n > 0)
	}
}
