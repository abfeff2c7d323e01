package natsconn

import (
	"math/rand/v2"
	"time"

	"github.com/natsrelay/natsrelay/config"
)

// backoff is exponential with full jitter: a thousand relays whose hub restarts come back spread
// over the whole interval, not in waves.
type backoff struct {
	min, max time.Duration
	random   func(n int64) int64 // in [0, n)
}

func newBackoff(cfg config.Backoff) backoff {
	b := backoff{min: cfg.Min, max: cfg.Max, random: rand.Int64N}
	if b.min <= 0 {
		b.min = 250 * time.Millisecond // never a busy loop, whatever was configured
	}
	b.max = max(b.max, b.min)
	return b
}

// What a server that loses all its clients at once may expect of them. Each draws its first pause from
// (0, herdSpread], so that of N clients N/20 come in a second, and no second sees N/10 of them. Nobody can know whether
// it was cut alone, so that costs the one that was, too: up to 1/herdShare of the time that the connection had lived, and
// so never more than that of its life. A young connection is back as soon as ever; it lives 20 minutes until it waits 20 s.
const (
	herdSpread = 20 * time.Second
	herdShare  = 60
)

// spread returns what the first pause after a cut is drawn from. restarted means that the server, when we last
// connected to it, had been started anew: who sees it go again must not take it for a short cut, or the herd that
// brought it down comes back faster each time.
func (b backoff) spread(lived time.Duration, restarted bool) time.Duration {
	s := min(lived/herdShare, herdSpread)
	if restarted {
		s = herdSpread
	}
	return min(max(s, b.min), b.max)
}

// delay returns the pause before an attempt, counted from 1: evenly distributed over (0, min(max, spread·2^(attempt-1))].
// Where the spread is more than min, who has tried and failed gives way until all the others have had their turn.
func (b backoff) delay(attempt int, spread time.Duration) time.Duration {
	low, high := time.Duration(0), b.ceiling(attempt, spread)
	if attempt > 1 {
		low = spread - b.min
	}
	return low + 1 + time.Duration(b.random(int64(high-low)))
}

func (b backoff) ceiling(attempt int, spread time.Duration) time.Duration {
	d := spread
	for ; attempt > 1 && d < b.max; attempt-- {
		d *= 2
	}
	return min(d, b.max)
}
