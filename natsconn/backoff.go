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

// delay returns the pause after the given round of failed attempts, counted from 1: evenly
// distributed over (0, min(max, min·2^(round-1))].
func (b backoff) delay(round int) time.Duration {
	return 1 + time.Duration(b.random(int64(b.ceiling(round))))
}

func (b backoff) ceiling(round int) time.Duration {
	d := b.min
	for ; round > 1 && d < b.max; round-- {
		d *= 2
	}
	return min(d, b.max)
}
