package natsconn

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// shortLife: a connection that is cut sooner than this, again and again, is backed off from as if it
// had never been made. A server that accepts and then throws out would be dialled 8 times a second.
const shortLife = time.Second

// lameDuckSpread is what the moves away from a server that is about to stop are spread over: all its clients hear of it at
// once, and it sends none away in the first 10 s (lame_duck_grace_period).
const lameDuckSpread = 8 * time.Second

// An outage is the time from a cut to the next connection, and says when to try. nats.go's reconnecting goroutine and its
// event goroutine both ask, in no particular order: whoever comes first draws the pause.
type outage struct {
	backoff backoff

	mu        sync.Mutex
	begun     bool
	tried     bool          // the first attempt is under way
	first     time.Duration // pause before it
	spread    time.Duration
	short     int  // connections in a row that were cut within shortLife
	announced bool // the server has said that it stops
	moving    bool // the cut is our own
	restarted bool // the server had been started anew when we last connected to it
}

// begin returns the pause before the first attempt, and whether the cut is our own, to move to another server.
// lived is how long the connection had lasted.
func (o *outage) begin(lived time.Duration) (pause time.Duration, moving bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.beginLocked(lived)
	return o.first, o.moving
}

func (o *outage) beginLocked(lived time.Duration) {
	if o.begun {
		return
	}
	o.begun = true
	switch {
	case o.moving:
		o.first, o.spread = 0, o.backoff.min
		return
	case o.announced: // such a server sends its clients away one after the other
		o.spread = o.backoff.min
	default:
		o.spread = o.backoff.spread(lived, o.restarted)
	}
	if lived < shortLife {
		o.short++
	} else {
		o.short = 0
	}
	o.first = o.backoff.delay(1+o.short, o.spread)
}

// take returns the pause before the first attempt to the goroutine that makes it; false: it has been made.
func (o *outage) take(lived time.Duration) (pause time.Duration, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.beginLocked(lived)
	ok, o.tried = !o.tried, true
	return o.first, ok
}

// pause returns the wait before an attempt, counted from 1, other than the one that take returns.
func (o *outage) pause(attempt int) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.backoff.delay(attempt+o.short, max(o.spread, o.backoff.min))
}

// end takes note of a connection; restarted says whether its server is another process than the last time.
func (o *outage) end(restarted bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun, o.tried, o.announced, o.moving = false, false, false, false
	o.spread, o.restarted = 0, restarted
}

// announce notes that the server has said that it stops, and returns what the move away from it may be spread over.
func (o *outage) announce(lived time.Duration) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.announced = true
	return min(o.backoff.spread(lived, o.restarted), lameDuckSpread)
}

// move notes that the next cut is our own, to move to another server.
func (o *outage) move() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.moving = true
}

// successor returns the server after the one we were connected to, in the order of nats.go's list. nats.go would go
// there by itself, but if there are several servers, without a pause.
func successor(pool []nats.Server, url string) *nats.Server {
	for i := range pool {
		if plainURL(pool[i].URL.String()) == url {
			return &pool[(i+1)%len(pool)]
		}
	}
	if len(pool) == 0 {
		return nil
	}
	return &pool[0]
}
