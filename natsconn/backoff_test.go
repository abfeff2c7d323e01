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
		d := b.delay(round, b.min)
		if d <= 0 || d > ceiling {
			t.Fatalf("round %d: pause %v is not in (0, %v]", round, d, ceiling)
		}
		tenths[int64(d-1)*10/int64(ceiling)]++
	}
	if lo, hi := slices.Min(tenths[:]), slices.Max(tenths[:]); lo < n/10*9/10 || hi > n/10*11/10 {
		t.Errorf("round %d: pauses by tenths of %v: %v, want about %d each", round, ceiling, tenths, n/10)
	}
}

// What the first pause is drawn from grows with the life of the connection, up to 20 s, unless the server is known to come and go.
func TestSpread(t *testing.T) {
	def := config.Backoff{Min: 250 * time.Millisecond, Max: 30 * time.Second}
	for _, c := range []struct {
		cfg       config.Backoff
		lived     time.Duration
		restarted bool
		want      time.Duration
	}{
		{def, 0, false, 250 * time.Millisecond},
		{def, time.Minute, false, time.Second},
		{def, 24 * time.Hour, false, 20 * time.Second},
		{def, 0, true, 20 * time.Second},
		{config.Backoff{Min: time.Second, Max: 5 * time.Second}, 24 * time.Hour, true, 5 * time.Second}, // max is the user's word
		{config.Backoff{Min: time.Minute, Max: time.Hour}, 0, false, time.Minute},
	} {
		if got := newBackoff(c.cfg).spread(c.lived, c.restarted); got != c.want {
			t.Errorf("%+v after %v, restarted %v: spread %v, want %v", c.cfg, c.lived, c.restarted, got, c.want)
		}
	}
}

// Who has tried gives way to those who have not: only then the first attempts of all do not meet the second ones of some.
func TestBackoffGivesWay(t *testing.T) {
	b := newBackoff(config.Backoff{Min: 250 * time.Millisecond, Max: 30 * time.Second})
	const spread = 20 * time.Second
	for attempt := 2; attempt < 5; attempt++ {
		for range 1000 {
			if d := b.delay(attempt, spread); d <= spread-b.min || d > b.max {
				t.Fatalf("attempt %d after a pause of %v, want (%v, %v]", attempt, d, spread-b.min, b.max)
			}
		}
	}
}

func TestBackoffIsNeverABusyLoop(t *testing.T) {
	for _, cfg := range []config.Backoff{{}, {Min: -1, Max: -1}, {Max: time.Millisecond}} {
		if got := newBackoff(cfg).ceiling(1, newBackoff(cfg).min); got < time.Millisecond {
			t.Errorf("%+v: pauses of at most %v", cfg, got)
		}
	}
}
