package relay

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

var errDown = errors.New("connection refused")

func newTestGate(lanes int, lo, hi time.Duration) *gate {
	return newGate(DeliveryOptions{RetryMin: lo, RetryMax: hi}, lanes, zerolog.Nop(), func(health) {})
}

// fail closes the gate through one failed attempt.
func fail(t *testing.T, g *gate, err error) {
	t.Helper()
	p, enterErr := g.enter(t.Context())
	if enterErr != nil {
		t.Fatal(enterErr)
	}
	g.report(p, err)
}

// Invariant 6: while the endpoint fails there is one attempt at a time, however many lanes wait.
func TestGateLetsOneProbePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lanes = 64
		g := newTestGate(lanes, time.Second, 8*time.Second)
		fail(t, g, errDown)
		ctx, cancel := context.WithCancel(t.Context())
		var inside, most, probes atomic.Int64
		var running sync.WaitGroup
		for range lanes {
			running.Go(func() {
				for {
					p, err := g.enter(ctx)
					if err != nil {
						return
					}
					probes.Add(1)
					most.Store(max(most.Load(), inside.Add(1)))
					time.Sleep(100 * time.Millisecond)
					inside.Add(-1)
					g.report(p, errDown)
				}
			})
		}
		time.Sleep(10 * time.Minute)
		cancel()
		running.Wait()
		if most.Load() != 1 {
			t.Errorf("%d attempts at once while the endpoint fails, want 1", most.Load())
		}
		// Pauses are uniform in [0, 8 s] once grown, so about one attempt every 4.1 s: 146 in ten minutes.
		if n := probes.Load(); n < 100 || n > 220 {
			t.Errorf("%d probes in 10 minutes, want about 146", n)
		}
	})
}

func TestGateBackoffHasFullJitter(t *testing.T) {
	const lo, hi = 100 * time.Millisecond, 3 * time.Second
	for attempts, ceiling := range map[int]time.Duration{1: lo, 2: 2 * lo, 3: 4 * lo, 5: 16 * lo, 6: hi, 100: hi} {
		g := newTestGate(1, lo, hi)
		g.attempts = attempts
		var sum, most time.Duration
		const n = 4000
		for range n {
			p := g.pause(errDown)
			sum, most = sum+p, max(most, p)
		}
		mean := sum / n
		if most > ceiling || most < ceiling*95/100 || mean < ceiling*46/100 || mean > ceiling*54/100 {
			t.Errorf("attempt %d: pauses up to %v with mean %v, want uniform in [0, %v]", attempts, most, mean, ceiling)
		}
	}
}

func TestGateHonoursRetryAfterUpToItsCap(t *testing.T) {
	for _, tc := range []struct{ asked, want time.Duration }{
		{7 * time.Second, 7 * time.Second},
		{24 * time.Hour, maxRetryAfter * 2 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newTestGate(1, time.Second, 2*time.Second)
			fail(t, g, &Fault{Err: errDown, RetryAfter: tc.asked})
			began := time.Now()
			if _, err := g.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(began); waited != tc.want {
				t.Errorf("Retry-After %v: probed after %v, want %v", tc.asked, waited, tc.want)
			}
		})
	}
}

// Sixteen requests under way when an endpoint dies are one failure, not sixteen.
func TestGateCountsStragglersOnce(t *testing.T) {
	g := newTestGate(16, time.Second, time.Hour)
	var passes []pass
	for range 16 {
		p, err := g.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		passes = append(passes, p)
	}
	for _, p := range passes {
		g.report(p, errDown)
	}
	if g.attempts != 1 {
		t.Errorf("%d failures counted, want 1", g.attempts)
	}
}

func TestGateStartsSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lanes = 16
		g := newTestGate(lanes, time.Second, time.Second)
		fail(t, g, errDown)
		probe, err := g.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		g.report(probe, nil)
		for round, want := range []int{1, 2, 4, 8, 16, 16} {
			var passes []pass
			for {
				p, wait, err := g.tryEnter()
				if err != nil {
					t.Fatal(err)
				}
				if wait != nil {
					break
				}
				passes = append(passes, p)
			}
			if len(passes) != want {
				t.Errorf("round %d after the probe: %d lanes let in, want %d", round, len(passes), want)
			}
			for _, p := range passes {
				g.report(p, nil)
			}
		}
	})
}

func TestGateStopFreesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newTestGate(1, time.Hour, time.Hour)
		fail(t, g, errDown)
		got := make(chan error)
		go func() {
			_, err := g.enter(t.Context())
			got <- err
		}()
		synctest.Wait()
		g.stop()
		if err := <-got; !errors.Is(err, errGateStopped) {
			t.Errorf("enter returned %v, want %v", err, errGateStopped)
		}
	})
}

func TestGateTellsBlockedFromFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []health
		g := newGate(DeliveryOptions{RetryMin: time.Second, RetryMax: time.Second}, 1, zerolog.Nop(), func(h health) { changes = append(changes, h) })
		fail(t, g, errDown)
		fail(t, g, &Fault{Err: errDown, Blocked: true})
		fail(t, g, &Fault{Err: errDown, Blocked: true})
		fail(t, g, nil)
		want := []health{failing, blocked, healthy}
		if len(changes) != len(want) || changes[0] != want[0] || changes[1] != want[1] || changes[2] != want[2] {
			t.Errorf("health went through %v, want %v", changes, want)
		}
	})
}

// The route is told of the first endpoint that fails and of the last that works again, whichever they are.
func TestDowns(t *testing.T) {
	var told []bool
	d := &downs{tell: func(down bool) { told = append(told, down) }}
	sink, dead := d.watch(), d.watch()
	for _, change := range []func(){
		func() { sink(failing) }, func() { dead(blocked) }, func() { sink(blocked) }, func() { sink(healthy) }, func() { dead(healthy) },
	} {
		change()
	}
	if want := []bool{true, true, true, true, false}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

// However long the shortest pause is, and however often an endpoint has failed, the pause stays within its bounds.
func TestGateBackoffOfManyFailures(t *testing.T) {
	const hi = 24 * time.Hour
	for _, lo := range []time.Duration{time.Millisecond, 5 * time.Second, time.Hour, hi} {
		g := newTestGate(1, lo, hi)
		for g.attempts = 1; g.attempts < 200; g.attempts++ {
			if p := g.pause(errDown); p < 0 || p > hi {
				t.Fatalf("pauses from %v, failure %d: %v", lo, g.attempts, p)
			}
		}
	}
}
