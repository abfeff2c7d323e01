package relay

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/rs/zerolog"
)

// stuckSink answers nothing until it is let go, but for beats now and then.
type stuckSink struct {
	scriptSink
	stuck chan struct{}
	beat  time.Duration // 0: never
}

func (s *stuckSink) Deliver(ctx context.Context, batch []*Message, out []Outcome) error {
	for wait := s.beat; ; {
		beat := make(<-chan time.Time)
		if wait > 0 {
			beat = time.After(wait)
		}
		select {
		case <-s.stuck: // a sink that is stuck does not heed ctx either
			return s.scriptSink.Deliver(ctx, batch, out)
		case <-beat:
			Beat(ctx)
		}
	}
}

func newStuckSink(lanes int) *stuckSink {
	return &stuckSink{scriptSink: scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: lanes}, answer: deliverAll}, stuck: make(chan struct{})}
}

// expectStall expects the route to stall, or not, and to say so with these words.
func expectStall(t *testing.T, r *Route, want string) {
	t.Helper()
	synctest.Wait() // the watch may look at this very moment
	why, stalled := r.Stalled()
	if stalled != (want != "") || !strings.Contains(why, want) {
		t.Errorf("stalled: %t %q, want %q", stalled, why, want)
	}
	if r.Stats().Stalled != why {
		t.Errorf("the stats say %q, Stalled says %q", r.Stats().Stalled, why)
	}
}

func TestStalledInTheSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newStuckSink(8)
		route, accept, stop := start(t, testOptions(t), sink)
		publish(t, accept, 3, 3)
		time.Sleep(defaultStallAfter - time.Second)
		expectStall(t, route, "")
		time.Sleep(defaultStallAfter / 4)
		expectStall(t, route, "delivering to the sink for 2m")
		close(sink.stuck)
		time.Sleep(defaultStallAfter / 4)
		expectStall(t, route, "")
		stop()
	})
}

// One lane that is stuck is a stall, however well the others get on.
func TestStalledInOneOfManyLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 8}, answer: deliverAll}
		route, accept, stop := start(t, testOptions(t), &hookSink{sink, func(m *Message) {
			if m.Subject == "s.0" {
				<-stuck
			}
		}})
		for range 200 {
			publish(t, accept, 10, 10)
			time.Sleep(time.Second)
		}
		expectStall(t, route, "delivering to the sink")
		close(stuck)
		time.Sleep(time.Minute)
		expectStall(t, route, "")
		stop()
	})
}

// hookSink calls a function before each delivery.
type hookSink struct {
	Sink
	before func(*Message)
}

func (s *hookSink) Deliver(ctx context.Context, batch []*Message, out []Outcome) error {
	s.before(batch[0])
	return s.Sink.Deliver(ctx, batch, out)
}

// A delivery of many steps is slow, not stuck.
func TestBeatIsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newStuckSink(1)
		sink.beat = 20 * time.Second
		route, accept, stop := start(t, testOptions(t), sink)
		publish(t, accept, 1, 1)
		for range 60 {
			time.Sleep(time.Minute)
			expectStall(t, route, "")
		}
		close(sink.stuck)
		stop()
	})
}

// What has a reason is no stall: a sink that fails, a pause, a source that brings nothing, a route that has ended.
func TestNotStalled(t *testing.T) {
	failing := func(batch []*Message, out []Outcome) error { return errDown }
	for name, tc := range map[string]struct {
		answer func([]*Message, []Outcome) error
		before func(*Route)
		n      int
	}{
		"idle":    {deliverAll, func(*Route) {}, 0},
		"failing": {failing, func(*Route) {}, 10},
		"paused":  {deliverAll, (*Route).Pause, 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 2}, answer: tc.answer}
				route, accept, stop := start(t, testOptions(t), sink)
				tc.before(route)
				publish(t, accept, tc.n, 3)
				for range 60 {
					time.Sleep(time.Minute)
					expectStall(t, route, "")
				}
				stop()
				expectStall(t, route, "")
			})
		})
	}
}

// A lane that never gives its pass back, as a bug would, keeps all others out.
func TestStalledThoughTheGateIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.StallAfter = time.Minute
		route, accept, stop := start(t, o, &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, answer: deliverAll})
		lost, err := route.gate.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		publish(t, accept, 1, 1)
		time.Sleep(50 * time.Second)
		expectStall(t, route, "")
		time.Sleep(20 * time.Second)
		expectStall(t, route, "messages are ready")
		route.gate.release(lost)
		time.Sleep(20 * time.Second)
		expectStall(t, route, "")
		stop()
	})
}

// slowFS is the real file system, but for writes that last until they are let go.
type slowFS struct {
	spool.FS
	held chan struct{}
}

func (f *slowFS) OpenFile(name string, flag int) (spool.File, error) {
	file, err := f.FS.OpenFile(name, flag)
	return slowFile{file, f}, err
}

type slowFile struct {
	spool.File
	fs *slowFS
}

func (f slowFile) WriteAt(p []byte, off int64) (int, error) {
	<-f.fs.held
	return f.File.WriteAt(p, off)
}

// A disk that hangs in a write is a stall.
func TestStalledInTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Buffer.Disk = 1 << 30
		route, accept, stop := start(t, o, &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, answer: func([]*Message, []Outcome) error { return errDown }})
		fs := &slowFS{FS: spool.OS(), held: make(chan struct{})}
		hang(t, route, fs, filepath.Join(t.TempDir(), "spool"))
		publish(t, accept, 10, 1)
		time.Sleep(defaultStallAfter + time.Minute)
		expectStall(t, route, "writing to disk")
		close(fs.held)
		time.Sleep(defaultStallAfter / 4)
		expectStall(t, route, "")
		stop()
	})
}

// hang gives the route, which must not have used its disk yet, another one.
func hang(t *testing.T, r *Route, fs *slowFS, dir string) {
	t.Helper()
	open := func() *spool.Spool {
		disk, err := spool.Open(dir, spool.Options{FS: fs, MaxBytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		return disk
	}
	opened := make(chan *spool.Spool, 1)
	go func() { opened <- open() }()
	var disk *spool.Spool
	for disk == nil { // it may write when it is made
		select {
		case disk = <-opened:
		case fs.held <- struct{}{}:
		}
	}
	r.buffer.mu.Lock()
	defer r.buffer.mu.Unlock()
	if err := r.buffer.disk.Close(); err != nil {
		t.Fatal(err)
	}
	r.buffer.disk = disk
}

// The store of the dead letters may be what is stuck.
func TestStalledInTheDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		store := &stuckStore{held: make(chan struct{})}
		o.DeadLetters = store
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, answer: func(_ []*Message, out []Outcome) error {
			out[0] = Outcome{Status: Refused}
			return nil
		}}
		route, accept, stop := start(t, o, sink)
		publish(t, accept, 1, 1)
		time.Sleep(defaultStallAfter + time.Minute)
		expectStall(t, route, "storing dead letters")
		close(store.held)
		time.Sleep(time.Minute)
		expectStall(t, route, "")
		stop()
	})
}

type stuckStore struct{ held chan struct{} }

func (s *stuckStore) Store(context.Context, []*DeadLetter) (int, error) { <-s.held; return 0, nil }
func (s *stuckStore) Close(context.Context) error                       { return nil }

// A machine that was suspended for an hour comes back in the middle of a delivery.
func TestSuspendedIsNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		route, err := NewRoute(testOptions(t), newPushSource(), newStuckSink(1), zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		route.buffer.lanes[0].pulse.at(sending)
		route.watch.look()
		time.Sleep(time.Hour)
		if why := route.watch.look(); why != "" {
			t.Errorf("after one tick it says %q", why)
		}
	})
}
