package natsconn

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/config"
)

// Full jitter: every pause up to the ceiling is equally likely, and the ceiling doubles up to max.
func TestBackoffIsFullJitter(t *testing.T) {
	const lo, hi = 250 * time.Millisecond, 30 * time.Second
	b := newBackoff(config.Backoff{Min: lo, Max: hi})
	b.random = rand.New(rand.NewPCG(1, 2)).Int64N
	for round, ceiling := range []time.Duration{lo, 2 * lo, 4 * lo, 8 * lo, 16 * lo, 32 * lo, 64 * lo, hi, hi} {
		checkUniform(t, b, round+1, ceiling)
	}
	checkUniform(t, b, 1_000_000, hi)
}

func checkUniform(t *testing.T, b backoff, round int, ceiling time.Duration) {
	t.Helper()
	const n = 20_000
	var tenths [10]int
	for range n {
		d := b.delay(round)
		if d <= 0 || d > ceiling {
			t.Fatalf("round %d: pause %v is not in (0, %v]", round, d, ceiling)
		}
		tenths[int64(d-1)*10/int64(ceiling)]++
	}
	if lo, hi := slices.Min(tenths[:]), slices.Max(tenths[:]); lo < n/10*9/10 || hi > n/10*11/10 {
		t.Errorf("round %d: pauses by tenths of %v: %v, want about %d each", round, ceiling, tenths, n/10)
	}
}

func TestBackoffIsNeverABusyLoop(t *testing.T) {
	for _, cfg := range []config.Backoff{{}, {Min: -1, Max: -1}, {Max: time.Millisecond}} {
		if got := newBackoff(cfg).ceiling(1); got < time.Millisecond {
			t.Errorf("%+v: pauses of at most %v", cfg, got)
		}
	}
}
