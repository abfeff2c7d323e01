package relay

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/rs/zerolog"
)

// A faultyFS is the real file system until it is told to fail everything that writes.
type faultyFS struct {
	spool.FS
	fault       atomic.Pointer[syscall.Errno]
	syncFault   atomic.Pointer[syscall.Errno] // of fsync alone
	removeFault atomic.Pointer[syscall.Errno] // of unlinking alone
	slow        atomic.Pointer[chan struct{}] // while it is open, fsync lasts; nil: it does not
}

func (f *faultyFS) err() error {
	if e := f.fault.Load(); e != nil {
		return *e
	}
	return nil
}

func (f *faultyFS) OpenFile(name string, flag int) (spool.File, error) {
	if err := f.err(); err != nil && flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE) != 0 {
		return nil, err
	}
	file, err := f.FS.OpenFile(name, flag)
	return faultyFile{file, f}, err
}

func (f *faultyFS) Remove(name string) error {
	if e := f.removeFault.Load(); e != nil {
		return *e
	}
	return f.FS.Remove(name)
}

type faultyFile struct {
	spool.File
	fs *faultyFS
}

func (f faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.err(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f faultyFile) Sync() error {
	if slow := f.fs.slow.Load(); slow != nil {
		<-*slow
	}
	if e := f.fs.syncFault.Load(); e != nil {
		return *e
	}
	if err := f.fs.err(); err != nil {
		return err
	}
	return f.File.Sync()
}

// Whatever the disk's trouble, the buffer goes on from memory within its bound, in order, and returns to the disk by
// itself; a restart afterwards finds everything.
func TestBufferWithFailingDisk(t *testing.T) {
	for name, errno := range map[string]syscall.Errno{"ENOSPC": syscall.ENOSPC, "EIO": syscall.EIO, "EROFS": syscall.EROFS} {
		for _, policy := range []WhenFull{DropOldest, DropNewest} {
			t.Run(fmt.Sprintf("%s/%d", name, policy), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { failingDisk(t, errno, policy) })
			})
		}
	}
}

func failingDisk(t *testing.T, errno syscall.Errno, policy WhenFull) {
	fs := &faultyFS{FS: spool.OS()}
	dir := filepath.Join(t.TempDir(), "spool")
	opts := BufferOptions{Memory: 1 << 20, Disk: 1 << 30, Persist: PersistOutage, WhenFull: policy}
	d := newDrops(zerolog.Nop())
	open := func() *buffer {
		disk, err := spool.Open(dir, spool.Options{FS: fs, MaxBytes: opts.Disk})
		if err != nil {
			t.Fatal(err)
		}
		b := newBuffer(opts, disk, 1, OrderStrict, &counters{}, d, zerolog.Nop())
		b.start()
		return b
	}
	b := open()
	b.setSink(true)
	time.Sleep(time.Second) // the outage begins
	put := func(from, to int) {
		for i := from; i < to; i++ {
			if err := b.put(&Message{Subject: "s", ID: "x", Data: fmt.Appendf(make([]byte, 0, 1000), "%06d", i), Time: time.Now()}); err != nil && err != errNoRoom {
				t.Fatal(err)
			}
		}
		synctest.Wait()
	}
	put(0, 3000) // more than memory holds: a gap opens
	fs.fault.Store(&errno)
	put(3000, 6000)
	if held := b.depth().memoryBytes; held > opts.Memory {
		t.Errorf("%d bytes in memory while the disk fails, the bound is %d", held, opts.Memory)
	}
	b.mu.Lock()
	if b.diskDown == nil {
		t.Error("the buffer does not know that its disk fails")
	}
	b.mu.Unlock()
	fs.fault.Store(nil)
	time.Sleep(2 * diskRest)
	put(6000, 9000)
	// With drop_oldest, what is on disk may have given way; what has come since is there in any case.
	if n, want := b.depth().disk, map[WhenFull]int{DropOldest: 3000, DropNewest: 6000}[policy]; n < want {
		t.Errorf("%d messages on disk after it works again, want %d at least", n, want)
	}
	b.stopPuts()
	b.stopTakes()
	if err := b.close(); err != nil {
		t.Fatal(err)
	}

	b = open()
	got := drainInOrder(t, b)
	dropped := int(d.snapshot()[DropBufferFull])
	if got+dropped != 9000 || d.snapshot()[DropShutdown] != 0 {
		t.Errorf("%d delivered and %v dropped of 9,000", got, d.snapshot())
	}
	b.stopPuts()
	b.stopTakes()
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
}

// With persist = "always" and a disk that fails, messages flow by memory; those that are still there when it works again are written.
func TestBufferFlowsWhileTheDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &faultyFS{FS: spool.OS()}
		disk, err := spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{FS: fs, MaxBytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		b := newBuffer(BufferOptions{Memory: 1 << 20, Disk: 1 << 30, Persist: PersistAlways, WhenFull: Block}, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.Nop()), zerolog.Nop())
		b.start()
		broken := syscall.EIO
		fs.fault.Store(&broken)
		put := func(i int) {
			if err := b.put(&Message{Subject: "s", ID: "x", Data: fmt.Append(nil, i), Time: time.Now()}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		put(1)
		if n := drainInOrder(t, b); n != 1 {
			t.Errorf("%d messages delivered while the disk fails, want 1", n)
		}
		put(2)
		fs.fault.Store(nil)
		time.Sleep(2 * diskRest)
		if d := b.depth(); d.disk != 1 || d.memory != 1 {
			t.Errorf("%+v once the disk works again, want the waiting message in memory and on disk", d)
		}
		b.stopPuts()
		b.stopTakes()
		if err := b.close(); err != nil {
			t.Fatal(err)
		}
	})
}

// drainInOrder takes all that is there and returns how many messages it was.
func drainInOrder(t *testing.T, b *buffer) int {
	t.Helper()
	n, last := 0, ""
	synctest.Wait()
	for l := b.lanes[0]; l.queue.len() > 0; synctest.Wait() {
		batch := b.take(l, Limits{Messages: 100, Bytes: 1 << 20})
		out := make([]Outcome, len(batch))
		for i, m := range batch {
			if string(m.Data) <= last {
				t.Fatalf("%s comes after %s", m.Data, last)
			}
			last = string(m.Data)
			out[i].Status = Delivered
		}
		n += len(batch)
		b.settle(l, out)
	}
	return n
}

// The disk is full by its own bound: drop_oldest gives up the oldest segments, and keeps the newest. What is being delivered
// meanwhile counts as delivered if it is, and as dropped if it never is.
func TestBufferDropsOldestSegments(t *testing.T) {
	for _, confirmed := range []bool{true, false} {
		t.Run(fmt.Sprint("confirmed=", confirmed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { dropSegments(t, confirmed) })
		})
	}
}

// shut ends a buffer that no lane works on.
func shut(t *testing.T, b *buffer) {
	t.Helper()
	b.stopPuts()
	b.stopTakes()
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
}

func dropSegments(t *testing.T, confirmed bool) {
	dir := filepath.Join(t.TempDir(), "spool")
	d := newDrops(zerolog.Nop())
	open := func() *buffer {
		disk, err := spool.Open(dir, spool.Options{MaxBytes: 4 << 20, SegmentBytes: 256 << 10})
		if err != nil {
			t.Fatal(err)
		}
		b := newBuffer(BufferOptions{Memory: 1 << 20, Disk: 4 << 20, Persist: PersistOverflow, WhenFull: DropOldest}, disk, 1, OrderStrict, &counters{}, d, zerolog.Nop())
		b.start()
		return b
	}
	b := open()
	const n = 20_000
	delivered, inFlight := 0, []*Message(nil)
	for i := range n {
		if err := b.put(&Message{Subject: "s", ID: "x", Data: fmt.Appendf(make([]byte, 1000), "%06d", i), Time: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if i == 100 {
			inFlight = b.take(b.lanes[0], Limits{Messages: 50, Bytes: 1 << 20})
		}
	}
	synctest.Wait()
	if confirmed {
		out := make([]Outcome, len(inFlight))
		for i := range out {
			out[i].Status = Delivered
		}
		b.settle(b.lanes[0], out)
		delivered = len(out)
	}
	shut(t, b)
	b = open()
	delivered += drainInOrder(t, b)
	shut(t, b)
	if dropped := int(d.snapshot()[DropBufferFull]); delivered+dropped != n || dropped == 0 || d.snapshot()[DropShutdown] != 0 {
		t.Errorf("%d delivered of %d, dropped: %v", delivered, n, d.snapshot())
	}
}

// The disk is full of files that are done with and cannot be unlinked: there is nothing to give up on it, so the buffer goes on from memory until it can.
func TestBufferWithFilesThatCannotBeUnlinked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &faultyFS{FS: spool.OS()}
		disk, err := spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{FS: fs, MaxBytes: 4 << 20, SegmentBytes: 256 << 10})
		if err != nil {
			t.Fatal(err)
		}
		d := newDrops(zerolog.Nop())
		o := BufferOptions{Memory: 1 << 20, Disk: 4 << 20, Persist: PersistOverflow, WhenFull: DropOldest}
		b := newBuffer(o, disk, 1, OrderStrict, &counters{}, d, zerolog.Nop())
		b.start()
		put := func(from, to int) {
			for i := from; i < to; i++ {
				if err := b.put(&Message{Subject: "s", ID: "x", Data: fmt.Appendf(make([]byte, 1000), "%06d", i), Time: time.Now()}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		put(0, 10_000)
		eacces := syscall.EACCES
		fs.removeFault.Store(&eacces)
		delivered := drainInOrder(t, b)
		put(10_000, 15_000) // they fill the file that was being written
		delivered += drainInOrder(t, b)
		time.Sleep(2 * diskRest)
		put(15_000, 20_000)
		if s := b.depth(); s.disk > 0 || s.diskBytes < 4_000_000 || s.memory < 500 {
			t.Errorf("%d messages and %d bytes on disk, %d messages in memory: the test tests nothing", s.disk, s.diskBytes, s.memory)
		}
		fs.removeFault.Store(nil)
		time.Sleep(10 * time.Second)
		put(20_000, 30_000)
		if n := b.depth().disk; n < 2000 {
			t.Errorf("%d messages on disk once files can be unlinked, want 2,000 at least", n)
		}
		delivered += drainInOrder(t, b)
		if n := int(d.snapshot()[DropBufferFull]); delivered+n != 30_000 {
			t.Errorf("%d delivered and %v dropped of 30,000", delivered, d.snapshot())
		}
		b.stopPuts()
		b.stopTakes()
		if err := b.close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Segments are to be replaced because the disk is full, and cannot be: the rest from writing that this begins ends, though the one in which it was asked
// for has just ended.
func TestBufferThatCannotReplaceTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &faultyFS{FS: spool.OS()}
		disk, err := spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{FS: fs, MaxBytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := disk.Append([]spool.Record{{Seq: 1}}); err != nil {
			t.Fatal(err)
		}
		b := newBuffer(BufferOptions{Memory: 1 << 20, Disk: 1 << 30, WhenFull: DropOldest}, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.Nop()), zerolog.Nop())
		erofs := syscall.EROFS
		fs.removeFault.Store(&erofs)
		check := func(when string, stuck, takes bool) {
			t.Helper()
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.stuck != stuck || b.diskTakes() != takes {
				t.Errorf("%s: stuck is %t, the disk takes messages: %t", when, b.stuck, b.diskTakes())
			}
		}
		b.mu.Lock()
		b.replaceOldest()
		b.mu.Unlock()
		check("at first", true, false)
		time.Sleep(2 * diskRest)
		check("after the rest", false, true)
		if err := disk.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A change of sizes or of policy between two starts loses nothing: what an earlier run left on disk is delivered in order,
// also by a route that may no longer write there, or less than there is.
func TestRouteDeliversTheBacklogOfOtherSettings(t *testing.T) {
	const n = 3000
	for name, change := range map[string]func(*RouteOptions){
		"the same":                func(*RouteOptions) {},
		"no disk any more":        func(o *RouteOptions) { o.Buffer.Disk = 0 },
		"a smaller disk":          func(o *RouteOptions) { o.Buffer.Disk = 64 << 10 },
		"less memory":             func(o *RouteOptions) { o.Buffer.Memory = 200_000 },
		"another persist":         func(o *RouteOptions) { o.Buffer.Persist = PersistOverflow },
		"another full policy":     func(o *RouteOptions) { o.Buffer.WhenFull = Block },
		"another compression":     func(o *RouteOptions) { o.Buffer.Compression = spool.Zstd },
		"another sync":            func(o *RouteOptions) { o.Buffer.Sync = spool.SyncEach },
		"another order":           func(o *RouteOptions) { o.Delivery.Ordering = OrderSubject },
		"more lanes and no order": func(o *RouteOptions) { o.Delivery.Ordering, o.Delivery.InFlight = OrderNone, 32 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(t)
				o.Delivery.Ordering = OrderStrict
				o.Buffer.Disk, o.Buffer.Persist = 1<<30, PersistAlways
				limits := Limits{Messages: 50, Bytes: 1 << 20, Lanes: 8}
				_, accept, stop := start(t, o, &scriptSink{limits: limits, answer: func([]*Message, []Outcome) error { return errDown }})
				publish(t, accept, n, 7)
				stop()

				change(&o)
				sink := &scriptSink{limits: limits, answer: deliverAll}
				route, accept, stop := start(t, o, sink)
				if err := accept(&Message{Subject: "s.0", Data: fmt.Appendf(nil, "%06d", n), ID: "new", Time: time.Now()}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				stop()
				checkArrivals(t, sink.arrived, n+1, o.Delivery.Ordering)
				if s := route.Stats(); s.DroppedTotal() != 0 || s.DiskMessages != 0 {
					t.Errorf("%d dropped, %d still on disk", s.DroppedTotal(), s.DiskMessages)
				}
			})
		})
	}
}

// A message that is larger than what the queues leave of memory goes to disk all the same while the sink is down.
func TestBufferTakesLargeMessagesInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, err := spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{MaxBytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		o := BufferOptions{Memory: 1 << 20, Disk: 1 << 30, Persist: PersistOutage, WhenFull: Block}
		b := newBuffer(o, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.Nop()), zerolog.Nop())
		b.setSink(true)
		b.start()
		time.AfterFunc(time.Minute, b.stopPuts)
		const n = 2000
		for i := range n {
			size := 1000
			if i%100 == 99 {
				size = 900_000
			}
			if err := b.put(&Message{Subject: "s", ID: "x", Data: append(fmt.Appendf(nil, "%06d", i), make([]byte, size)...), Time: time.Now()}); err != nil {
				t.Errorf("message %d of %d bytes: %v", i, size, err)
				break
			}
			if held := b.depth().memoryBytes; held > 2*o.Memory {
				t.Errorf("%d bytes in memory, the bound is %d and a message", held, o.Memory)
			}
		}
		b.stopPuts()
		if got := drainInOrder(t, b); got != n {
			t.Errorf("%d of %d delivered", got, n)
		}
		b.stopTakes()
		if err := b.close(); err != nil {
			t.Fatal(err)
		}
	})
}

// While the disk fails, each attempt to write to it again lets no more into memory than its bound.
func TestBufferKeepsItsBoundWhileTheDiskIsTriedAgain(t *testing.T) {
	for name, policy := range map[string]WhenFull{"block": Block, "drop_oldest": DropOldest, "drop_newest": DropNewest} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs := &faultyFS{FS: spool.OS()}
				disk, err := spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{FS: fs, MaxBytes: 1 << 30})
				if err != nil {
					t.Fatal(err)
				}
				o := BufferOptions{Memory: 1 << 20, Disk: 1 << 30, Persist: PersistOverflow, WhenFull: policy}
				b := newBuffer(o, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.Nop()), zerolog.Nop())
				b.setSink(true)
				b.start()
				eio := syscall.EIO
				fs.fault.Store(&eio)
				const size = 100_000
				done := make(chan struct{})
				go func() {
					defer close(done)
					for b.put(&Message{Subject: "s", ID: "x", Data: make([]byte, size), Time: time.Now()}) != ErrStopped {
						time.Sleep(100 * time.Millisecond)
					}
				}()
				time.Sleep(time.Minute)
				synctest.Wait()
				if held := b.depth().memoryBytes; held > o.Memory+size+messageOverhead+10 {
					t.Errorf("%d bytes in memory after a minute, the bound is %d and a message", held, o.Memory)
				}
				fs.fault.Store(nil)
				b.stopPuts()
				<-done
				b.stopTakes()
				if err := b.close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// Whoever asks how a route stands does not wait for its disk, not even while the last fsync lasts.
func TestDepthDoesNotWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &faultyFS{FS: spool.OS()}
		disk, err := spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{FS: fs, MaxBytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		b := newBuffer(BufferOptions{Memory: 1 << 20, Disk: 1 << 30}, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.Nop()), zerolog.Nop())
		b.start()
		if err := b.put(&Message{Subject: "s", ID: "x", Data: []byte("x"), Time: time.Now()}); err != nil {
			t.Fatal(err)
		}
		slow := make(chan struct{})
		fs.slow.Store(&slow)
		b.stopPuts()
		b.stopTakes()
		closed := make(chan error)
		go func() { closed <- b.close() }()
		synctest.Wait()
		if n := b.depth().disk; n != 1 {
			t.Errorf("%d messages on disk while the last fsync lasts, want 1", n)
		}
		close(slow)
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}
