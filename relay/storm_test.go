package relay

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// A storm is a random history of one route: messages come, and everything around the route fails and works again as it pleases. In the end all of it
// works, and the route has to come to rest, with every message accounted for. The files:
//
//	storm_test.go           what happens, and in which order: the only place that draws
//	storm_settings_test.go  the route's settings
//	storm_parcel_test.go    the messages, and what is known of each of them
//	storm_source_test.go    where they come from: a source, and perhaps an upstream that keeps them
//	storm_sink_test.go      where they go to: a sink, and a store of dead letters
//	storm_run_test.go       one run of the route, from its opening to its end, and the sum of it
//	storm_watch_test.go     what must hold at any time, and at rest
//	memdisk_test.go         the disk
//
// History and settings are those of the seed; how goroutines take turns, and the pauses of the gates, are not. A failure says how to repeat it.
type storm struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand // of the history: for the one goroutine that draws it
	began time.Time
	log   zerolog.Logger
	said  []string // the history so far

	intake   bool // the source is left to the next Route when the settings change
	receipts bool // upstream keeps the messages until it is told
	dir      string
	disk     *memDisk
	relay    *Relay
	kill     context.CancelFunc // of the relay's context
	calls    sync.WaitGroup     // of Replay and Purge
	version  int                // of the settings
	faulty   bool               // the disk has failed

	mu        sync.Mutex // guards all below
	chance    *rand.Rand // of everybody else
	options   RouteOptions
	limits    Limits
	streams   bool
	drain     time.Duration
	unopen    bool // the route cannot be opened
	run       *run // nil: none is open
	weather   weather
	latency   time.Duration // of the sink, at most
	box       error         // why the store of dead letters fails
	stopping  time.Time     // when the run has been told to stop; zero: it has not
	sunny     bool          // the sink worked then, and its gate knew
	diskSince time.Time     // when the disk's faults last changed
	fullAt    time.Time     // when it last was so full that the source may have had to wait

	parcels  []*parcel
	copies   []*parcelCopy
	waiting  []*parcel // upstream, in order
	more     chan struct{}
	offered  *parcelCopy // in accept
	since    time.Time   // when it got there
	largest  int64       // message so far, as Message.Size counts
	events   int         // so far: messages accepted, offered, stored
	epoch    int         // how often what was known of deliveries may have been forgotten
	last     map[string]int
	lost     uint64 // counted by all runs: dropped, or corrupt
	blind    bool   // a segment may have been lost of which nobody knows how many messages it had
	replayed int    // calls of Replay
}

var (
	stormRuns  = flag.Int("storm.runs", 100, "random histories of a route in TestStorms")
	stormLog   = flag.Bool("storm.log", false, "show the log of the route")
	stormFirst = flag.Uint64("storm.first", 1, "seed of the first of them")
)

// The route that is put through everything at once: see storm.
func TestStorms(t *testing.T) {
	for seed := *stormFirst; seed < *stormFirst+uint64(*stormRuns); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			defer watchRealTime(seed)()
			synctest.Test(t, func(t *testing.T) { newStorm(t, seed).blow() })
		})
	}
}

// watchRealTime ends the test when a storm takes far too long: time stands still in its bubble, since a goroutine spins, or waits for a lock
// that is held by one that waits for something else.
func watchRealTime(seed uint64) (end func()) {
	const most = time.Minute // of a storm that takes less than a second, on a machine that has a lot else to do
	timer := time.AfterFunc(most, func() {
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		panic(fmt.Sprintf("storm %d: time has stood still for %v", seed, most))
	})
	return func() { timer.Stop() }
}

func newStorm(t *testing.T, seed uint64) *storm {
	s := &storm{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), chance: rand.New(rand.NewPCG(seed, 2)), began: time.Now(),
		dir: filepath.Join(t.TempDir(), "orders"), disk: newMemDisk(), log: zerolog.Nop(), more: make(chan struct{}, 1), last: map[string]int{},
	}
	if *stormLog {
		s.log = zerolog.New(os.Stderr).With().Timestamp().Logger()
	}
	switch s.rng.IntN(3) {
	case 0:
		s.receipts = true
	case 1:
		s.intake = s.rng.IntN(2) == 0
	}
	s.options.Buffer.SettleStored = s.receipts && s.rng.IntN(2) == 0
	s.drawSettings()
	return s
}

func (s *storm) blow() {
	defer func() {
		if s.t.Failed() {
			s.t.Logf("repeat with -run TestStorms -storm.first=%d -storm.runs=1 -count=20; the history:\n%s", s.seed, strings.Join(s.said, "\n"))
		}
	}()
	s.startRelay()
	endWatch := s.watch()
	for range 10 + s.rng.IntN(40) {
		s.step()
		time.Sleep(s.drawPause())
		if s.t.Failed() {
			break
		}
	}
	s.checkLeaks()
	s.calm()
	s.awaitRest()
	s.stopRelay()
	endWatch()
	s.checkAll()
}

// say notes what happens, for whoever has to understand a failure.
func (s *storm) say(format string, args ...any) {
	s.log.Info().Msgf(format, args...)
	s.said = append(s.said, fmt.Sprintf("%10v  ", time.Since(s.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// drawPause draws how long nothing new happens.
func (s *storm) drawPause() time.Duration {
	most := pick(s.rng, 0, time.Millisecond, 100*time.Millisecond, 2*time.Second, 20*time.Second, 3*time.Minute)
	if most == 0 {
		synctest.Wait()
		return 0
	}
	return time.Duration(s.rng.Int64N(int64(most)))
}

// step draws one thing that happens.
func (s *storm) step() {
	switch n := s.rng.IntN(100); {
	case n < 35:
		s.publish(1 + s.rng.IntN(pick(s.rng, 3, 30, 100)))
	case n < 50:
		s.changeWeather()
	case n < 63:
		s.changeDisk()
	case n < 68:
		s.changeBox()
	case n < 73:
		s.pauseOrResume()
	case n < 77:
		s.purge()
	case n < 82:
		s.replay(1 + s.rng.IntN(20))
	case n < 87:
		pick(s.rng, s.stopRelay, s.stopRelay, s.stopAtOnce, s.stopInAReload)()
		s.startRelay()
	case n < 92:
		s.die(s.rng.IntN(2) == 0)
	case n < 97:
		s.reload()
	default:
		s.mu.Lock()
		s.unopen = !s.unopen
		s.mu.Unlock()
		s.say("the route cannot be opened: %t", s.unopen)
	}
}

// calm ends all faults.
func (s *storm) calm() {
	s.say("all is well")
	s.mu.Lock()
	s.weather, s.latency, s.box, s.unopen = sinkFair, 0, nil, false
	s.diskSince = time.Now()
	s.mu.Unlock()
	s.disk.set(diskFaults{})
}

func (s *storm) changeWeather() {
	w := pick(s.rng, sinkFair, sinkFair, sinkDown, sinkDown, sinkBlocked, sinkBusy, sinkFlaky)
	latency := pick(s.rng, 0, 0, 20*time.Millisecond, time.Second, 20*time.Second)
	s.say("sink: %s, latency up to %v", w, latency)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.weather, s.latency = w, latency
}

func (s *storm) changeDisk() {
	f := diskFaults{slow: pick(s.rng, 0, 0, 50*time.Millisecond, 10*time.Second)}
	what := pick(s.rng, "", "", "space", "write", "sync", "remove", "read", "write and sync", "all but read")
	errno := pick(s.rng, syscallErrors...)
	switch what {
	case "":
	case "space":
		f.low = true
	case "write and sync":
		f.fail = failTo(errno, "write", "sync")
	case "all but read":
		f.fail = failTo(errno, "open", "write", "sync", "remove")
	default:
		f.fail = failTo(errno, what)
	}
	s.say("disk: fails to %q with %v, fsync takes %v", what, errno, f.slow)
	s.disk.set(f)
	s.faulty = s.faulty || s.disk.fails()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.diskSince = time.Now()
	if s.run != nil && s.disk.fails() {
		s.run.unclean = true
	}
}

func (s *storm) changeBox() {
	err := pick[error](s.rng, nil, nil, errDown, &Fault{Err: errDown, Blocked: true})
	s.say("dead letters: %v", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.box = err
}

func (s *storm) pauseOrResume() {
	pause := s.rng.IntN(2) == 0
	s.say("pause: %t", pause)
	r := s.route()
	switch {
	case r == nil:
	case pause:
		r.Pause()
	default:
		r.Resume()
	}
}

func (s *storm) purge() {
	s.say("purge")
	r := s.route()
	if r == nil {
		return
	}
	s.calls.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, _ = r.Purge(ctx) // what it has dropped is counted
	})
}

func (s *storm) reload() {
	s.drawSettings()
	if s.rng.IntN(8) == 0 {
		s.mu.Lock()
		s.unopen = true // for this change
		s.mu.Unlock()
		s.say("and the route cannot be opened")
	}
	s.tellStop()
	s.relay.Apply(s.plan())
}

// route returns the one that is open, nil if none is.
func (s *storm) route() *Route {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return nil
	}
	return s.run.route
}

func (s *storm) plan() Plan {
	p := RoutePlan{Name: "orders", Settings: s.version, Open: s.open}
	if s.intake {
		p.Intake = "the same"
	}
	return Plan{Drain: s.drain, Routes: []RoutePlan{p}}
}

func (s *storm) startRelay() {
	ctx, cancel := context.WithCancel(context.Background())
	s.kill = cancel
	s.relay = Start(ctx, s.plan(), s.log)
}

// stopRelay stops it in order.
func (s *storm) stopRelay() {
	s.say("stop")
	s.tellStop()
	s.relay.Stop()
	s.awaitStop()
}

// stopAtOnce stops it, and soon cuts that short, as a second signal does.
func (s *storm) stopAtOnce() {
	s.say("stop, cut short")
	s.tellStop()
	s.mu.Lock()
	s.sunny = false
	s.mu.Unlock()
	s.relay.Stop()
	time.Sleep(s.drawSoon())
	s.kill()
	s.awaitStop()
}

// stopInAReload stops it while the route is being changed, or is about to be.
func (s *storm) stopInAReload() {
	s.drawSettings()
	s.say("stop, and change to that")
	s.tellStop()
	relay, plan := s.relay, s.plan()
	first, second := func() { relay.Apply(plan) }, relay.Stop
	if s.rng.IntN(2) == 0 {
		first, second = second, first
	}
	var both sync.WaitGroup
	both.Go(first)
	time.Sleep(s.drawSoon())
	both.Go(second)
	both.Wait() // Wait would wait for Apply with a lock, which stops the time
	s.awaitStop()
}

// drawSoon draws a pause that may be shorter or longer than a stop.
func (s *storm) drawSoon() time.Duration {
	return time.Duration(s.rng.Int64N(int64(pick(s.rng, time.Microsecond, time.Second, 30*time.Second))))
}

func (s *storm) awaitStop() {
	err := s.relay.Wait()
	s.kill()
	if r := s.route(); err != nil && r != nil && !s.run.unclean {
		s.t.Errorf("the stop went wrong: %v", err)
	}
	s.endRun()
}

// tellStop notes that the run is about to be told to stop.
func (s *storm) tellStop() {
	synctest.Wait()
	r := s.route()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = time.Now()
	s.sunny = r != nil && s.weather == sinkFair && r.gate.current() == healthy
}

// die kills the process as kill -9 does, or with the power of its disk.
func (s *storm) die(power bool) {
	s.say("kill -9; the power fails: %t", power)
	synctest.Wait()
	s.mu.Lock()
	if s.run != nil {
		s.run.die()
	}
	s.mu.Unlock()
	s.kill()
	_ = s.relay.Wait()
	s.calls.Wait()
	s.mu.Lock()
	s.forget(power)
	s.mu.Unlock()
	if power {
		s.disk.losePower()
	}
	s.startRelay()
}

// open opens the route, for the relay.
func (s *storm) open(left *Intake) (*Route, error) {
	s.endRun()
	s.mu.Lock()
	unopen, disk := s.unopen, s.options.Buffer.Disk
	s.mu.Unlock()
	if unopen {
		return nil, errors.New("permission denied")
	}
	if disk > 0 { // the engine looks for it with os.Stat
		if err := os.MkdirAll(s.dir, 0o700); err != nil {
			return nil, err
		}
	}
	var source Source = left
	switch {
	case left != nil:
	case s.intake:
		source = NewIntake(&stormSource{s}, func(context.Context) {})
	default:
		source = &stormSource{s}
	}
	return s.beginRun(source)
}

// pick draws one of several.
func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }
