package supervise

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/relay"
)

// A manager is the service manager, and the relay that it asks about.
type manager struct {
	mu     sync.Mutex
	routes []relay.RouteStatus
	heard  []string // the lines of each notification, joined; without those of the watchdog
	fed    int      // how often the watchdog was
	reload func() error
	held   atomic.Pointer[chan struct{}] // while it is open, the relay does not answer; nil: it does
}

func (m *manager) options() Options {
	return Options{Status: m.status, Reload: func(context.Context) error { return m.reload() }, Notify: m.notify, Watchdog: 20 * time.Second, Log: zerolog.Nop()}
}

func (m *manager) status() []relay.RouteStatus {
	if held := m.held.Load(); held != nil {
		<-*held
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.routes
}

func (m *manager) set(routes ...relay.RouteStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.routes = routes
}

func (m *manager) notify(lines string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lines == "WATCHDOG=1" {
		m.fed++
		return nil
	}
	usec := regexp.MustCompile(`MONOTONIC_USEC=[0-9]+`)
	m.heard = append(m.heard, strings.ReplaceAll(usec.ReplaceAllString(lines, "MONOTONIC_USEC=…"), "\n", " | "))
	return nil
}

// fedIn returns how often the watchdog is fed in the time to come.
func (m *manager) fedIn(d time.Duration) int {
	count := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.fed
	}
	before := count()
	time.Sleep(d)
	return count() - before
}

// expect compares what the manager has heard since the last call.
func (m *manager) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if diff := cmp.Diff(want, m.heard); diff != "" {
		t.Errorf("the service manager has heard (-want +got):\n%s", diff)
	}
	m.heard = nil
}

// supervised runs a supervisor in a bubble, until do returns or calls stop.
func supervised(t *testing.T, m *manager, do func(t *testing.T, s *Supervisor, stop func())) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := New(m.options())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Run(ctx)
		}()
		stop := func() {
			cancel()
			<-ended
		}
		defer stop()
		do(t, s, stop)
	})
}

func in(name string, state relay.State) relay.RouteStatus {
	return relay.RouteStatus{Name: name, Stats: relay.RouteStats{State: state}}
}

func stalledFor(name, why string) relay.RouteStatus {
	r := in(name, relay.StateFlowing)
	r.Stats.Stalled = why
	return r
}

func TestReadyOnceAllHaveComeUp(t *testing.T) {
	m := &manager{}
	m.set(in("a", relay.StateStarting), in("b", relay.StateStarting))
	supervised(t, m, func(t *testing.T, _ *Supervisor, _ func()) {
		m.expect(t, "STATUS=starting: 2 routes: 2 starting")
		time.Sleep(2 * time.Second)
		broken := in("b", relay.StateStarting)
		broken.Err = errors.New("permission denied")
		m.set(in("a", relay.StateStarting), broken)
		time.Sleep(2 * time.Second)
		m.expect(t, "STATUS=starting: 2 routes: 2 starting; b cannot be opened: permission denied")
		m.set(in("a", relay.StateFlowing), broken) // it has said why not
		time.Sleep(2 * time.Second)
		m.expect(t, "READY=1 | STATUS=2 routes: 1 flowing, 1 starting; b cannot be opened: permission denied")
	})
}

// A route that neither comes up nor says why does not keep the machine from booting.
func TestReadyAfterAWhile(t *testing.T) {
	m := &manager{}
	m.set(in("a", relay.StateStarting))
	supervised(t, m, func(t *testing.T, _ *Supervisor, _ func()) {
		time.Sleep(comeUp - time.Second/2)
		m.expect(t, "STATUS=starting: 1 route: 1 starting")
		time.Sleep(time.Second)
		m.expect(t, "READY=1 | STATUS=1 route: 1 starting")
	})
}

// The watchdog is fed while every route gets on, or says why it does not; and when the relay stops.
func TestWatchdog(t *testing.T) {
	m := &manager{}
	m.set(in("a", relay.StateFlowing), in("b", relay.StateBlocked))
	supervised(t, m, func(t *testing.T, s *Supervisor, _ func()) {
		if fed := m.fedIn(time.Minute); fed < 12 {
			t.Errorf("fed %d times in a minute, and it wants to be every 20 s", fed)
		}
		m.set(in("a", relay.StateFlowing), stalledFor("b", "it has been writing to disk for 2m0s"))
		time.Sleep(time.Second)
		if fed := m.fedIn(time.Hour); fed > 0 {
			t.Errorf("fed %d times while a route was stalled", fed)
		}
		m.expect(t, "READY=1 | STATUS=2 routes: 1 flowing, 1 blocked", "STATUS=2 routes: 2 flowing; b has stalled: it has been writing to disk for 2m0s")
		s.Stopping()
		time.Sleep(time.Second)
		if fed := m.fedIn(time.Minute); fed < 12 {
			t.Errorf("fed %d times in a minute while stopping", fed)
		}
		m.expect(t, "STOPPING=1 | STATUS=stopping: deliveries under way get their time, the rest goes to disk")
	})
}

// A supervisor that cannot even look, because a lock is held for ever, does not feed the watchdog either.
func TestWatchdogOfADeadlock(t *testing.T) {
	m := &manager{}
	m.set(in("a", relay.StateFlowing))
	supervised(t, m, func(t *testing.T, _ *Supervisor, _ func()) {
		time.Sleep(time.Second / 2)
		held := make(chan struct{})
		m.held.Store(&held)
		if fed := m.fedIn(time.Hour); fed > 0 {
			t.Errorf("fed %d times", fed)
		}
		close(held)
	})
}

func TestReload(t *testing.T) {
	m := &manager{}
	m.set(in("a", relay.StateFlowing))
	supervised(t, m, func(t *testing.T, s *Supervisor, _ func()) {
		m.expect(t, "READY=1 | STATUS=1 route: 1 flowing")
		m.reload = func() error { time.Sleep(10 * time.Second); return nil }
		began := time.Now()
		if err := s.Reload(t.Context()); err != nil || time.Since(began) != 10*time.Second {
			t.Errorf("Reload: %v after %v", err, time.Since(began))
		}
		m.expect(t, "RELOADING=1 | MONOTONIC_USEC=… | STATUS=reloading the configuration", "READY=1 | STATUS=1 route: 1 flowing")

		broken := errors.New("the configuration has 3 problems")
		m.reload = func() error { return broken }
		if err := s.Reload(t.Context()); err != broken {
			t.Errorf("Reload: %v", err)
		}
		m.expect(t, "RELOADING=1 | MONOTONIC_USEC=… | STATUS=reloading the configuration",
			"READY=1 | STATUS=the last reload failed, see the log; 1 route: 1 flowing")

		m.reload = func() error { return nil }
		s.RequestReload()
		m.expect(t, "RELOADING=1 | MONOTONIC_USEC=… | STATUS=reloading the configuration", "READY=1 | STATUS=1 route: 1 flowing")
	})
}

// Reloads happen one after the other. All that are asked for while one is under way are one.
func TestReloadsAreCoalesced(t *testing.T) {
	m := &manager{}
	m.set(in("a", relay.StateFlowing))
	supervised(t, m, func(t *testing.T, s *Supervisor, _ func()) {
		reloads := 0
		m.reload = func() error { time.Sleep(10 * time.Second); reloads++; return nil }
		s.RequestReload()
		time.Sleep(time.Second) // it is under way
		var waiting sync.WaitGroup
		for range 5 {
			s.RequestReload()
			waiting.Go(func() {
				began := time.Now()
				if err := s.Reload(t.Context()); err != nil || time.Since(began) != 19*time.Second {
					t.Errorf("Reload: %v after %v; one that was under way already cannot have seen what is there now", err, time.Since(began))
				}
			})
		}
		waiting.Wait()
		if reloads != 2 {
			t.Errorf("%d reloads, want 2", reloads)
		}
	})
}

// Who waits for a reload does not wait for ever, and a relay that stops says nothing but that.
func TestReloadWhileStopping(t *testing.T) {
	m := &manager{}
	m.set(in("a", relay.StateFlowing))
	supervised(t, m, func(t *testing.T, s *Supervisor, stop func()) {
		m.expect(t, "READY=1 | STATUS=1 route: 1 flowing")
		m.reload = func() error { time.Sleep(time.Minute); return nil }
		s.RequestReload()
		m.expect(t, "RELOADING=1 | MONOTONIC_USEC=… | STATUS=reloading the configuration")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Reload(ctx); err != context.DeadlineExceeded {
			t.Errorf("Reload: %v", err)
		}
		s.Stopping()
		time.Sleep(2 * time.Minute)
		m.expect(t, "STOPPING=1 | STATUS=stopping: deliveries under way get their time, the rest goes to disk")
		stop()
		if err := s.Reload(t.Context()); err != errEnded {
			t.Errorf("Reload after the end: %v", err)
		}
	})
}

func TestDescribe(t *testing.T) {
	backlog := in("b", relay.StateSpilling)
	backlog.Stats.DiskMessages, backlog.Stats.DiskBytes, backlog.Stats.MemoryBytes = 3, 1288490189, 1<<20
	backlog.Stats.OldestAge = 14*time.Minute + 59*time.Second
	refused := in("c", relay.StateRetrying)
	refused.Stats.SinkTrouble = errors.New("connection\nrefused")
	refused.Stats.MemoryBytes, refused.Stats.OldestAge = 2000, 90*time.Second
	away := in("d", relay.StateFlowing)
	away.Stats.SourceTrouble = errors.New("not connected to edge")
	passing := in("e", relay.StateFlowing)
	passing.Stats.MemoryBytes, passing.Stats.OldestAge = 1<<20, time.Millisecond
	for _, c := range []struct {
		routes []relay.RouteStatus
		want   string
	}{
		{nil, "0 routes"},
		{[]relay.RouteStatus{passing}, "1 route: 1 flowing"},
		{[]relay.RouteStatus{in("a", relay.StateFlowing), backlog, in("z", relay.StateFlowing)}, "3 routes: 2 flowing, 1 spilling, 1.2 GiB, oldest 14 min"},
		{[]relay.RouteStatus{refused, away}, "2 routes: 1 flowing, 1 retrying, 2.0 KiB, oldest 90 s; c: connection refused"},
		{[]relay.RouteStatus{away}, "1 route: 1 flowing; d: not connected to edge"},
		{[]relay.RouteStatus{away, stalledFor("s", "why")}, "2 routes: 2 flowing; d: not connected to edge"},
	} {
		if got := oneLine(describe(c.routes)); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

func TestAgeAndLength(t *testing.T) {
	for want, got := range map[string]string{
		"0 s": age(0), "119 s": age(119 * time.Second), "2 min": age(2 * time.Minute), "119 min": age(119 * time.Minute), "47 h": age(47 * time.Hour), "3 days": age(80 * time.Hour),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := oneLine(strings.Repeat("é", 500)); len(got) > 410 || !strings.HasSuffix(got, "é…") {
		t.Errorf("shortened to %q", got)
	}
}
