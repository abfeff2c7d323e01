package relay

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/rs/zerolog"
)

// A ledger is an upstream that notes what becomes of each message.
type ledger struct {
	mu    sync.Mutex
	fates map[int][]Fate // of each number; more than one is wrong
	order map[Fate][]int
}

func newLedger() *ledger { return &ledger{fates: map[int][]Fate{}, order: map[Fate][]int{}} }

type entry struct {
	ledger *ledger
	n      int
}

func (e entry) Settle(f Fate) {
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	e.ledger.fates[e.n] = append(e.ledger.fates[e.n], f)
	e.ledger.order[f] = append(e.ledger.order[f], e.n)
}

// count returns how many messages had the fate, and fails the test if one was settled twice.
func (l *ledger) count(t *testing.T, f Fate) int {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, fates := range l.fates {
		if len(fates) > 1 {
			t.Fatalf("message %d was settled %d times: %v", n, len(fates), fates)
		}
	}
	return len(l.order[f])
}

func (l *ledger) message(n int) *Message {
	return &Message{
		Subject: "s", ID: fmt.Sprint(n), Data: fmt.Appendf(nil, "%06d", n), Time: time.Now(),
		Stream: "ORDERS", Sequence: uint64(n + 1), Receipt: entry{l, n},
	}
}

// offer passes messages from…to-1 to the route one after the other, as a source does, until it takes no more.
func (l *ledger) offer(accept func(*Message) error, from, to int) <-chan int {
	taken := make(chan int, 1)
	go func() {
		for n := from; n < to; n++ {
			if accept(l.message(n)) != nil {
				taken <- n - from
				return
			}
		}
		taken <- to - from
	}()
	return taken
}

// switchSink fails while it is down.
func switchSink(down *bool, mu *sync.Mutex) *scriptSink {
	return &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 8}, answer: func(batch []*Message, out []Outcome) error {
		mu.Lock()
		defer mu.Unlock()
		if *down {
			return errDown
		}
		return deliverAll(batch, out)
	}}
}

// What upstream keeps is held back there while the sink fails: nothing is settled, nothing goes to disk, and when the sink works again
// everything arrives in order and is settled once.
func TestUpstreamKeepsUntilDelivered(t *testing.T) {
	for name, persist := range map[string]Persist{"overflow": PersistOverflow, "outage": PersistOutage} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				down, l := true, newLedger()
				o := testOptions(t)
				o.Delivery.Ordering = OrderStrict
				o.Buffer.Disk, o.Buffer.Persist, o.Buffer.WhenFull = 1<<30, persist, Block
				sink := switchSink(&down, &mu)
				route, accept, stop := start(t, o, sink)
				<-l.offer(accept, 0, 1)
				time.Sleep(time.Second)
				taken := l.offer(accept, 1, 1000)
				time.Sleep(time.Minute)
				if d, s := route.buffer.depth(), route.Stats(); d.memory != 1 || s.Spilled != 0 || s.State != StateRetrying {
					t.Errorf("the sink is down: %d taken, %d spilled, state %s; want 1, 0, retrying", d.memory, s.Spilled, s.State)
				}
				if n := l.count(t, FateDone); n != 0 {
					t.Errorf("%d settled before they were delivered", n)
				}
				mu.Lock()
				down = false
				mu.Unlock()
				if n := <-taken; n != 999 {
					t.Fatalf("%d taken", n)
				}
				time.Sleep(time.Minute)
				if n := l.count(t, FateDone); n != 1000 || !slices.IsSorted(l.order[FateDone]) {
					t.Errorf("%d settled as done, want 1000 in order", n)
				}
				stop()
				checkArrivals(t, sink.arrived, 1000, OrderStrict)
			})
		})
	}
}

// On a stop everything that upstream keeps is given back in order, from memory and from disk, and nothing of it stays behind.
func TestUpstreamGetsBackWhatIsNotDelivered(t *testing.T) {
	for name, persist := range map[string]Persist{"memory": PersistOutage, "disk": PersistAlways} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLedger()
				o := testOptions(t)
				o.Delivery.Ordering = OrderSubject
				o.Buffer = BufferOptions{Memory: 200_000, Disk: 1 << 30, Persist: persist, WhenFull: Block}
				sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 8}, latency: time.Hour, answer: deliverAll} // takes them, and never confirms
				route, accept, stop := start(t, o, sink)
				taken := l.offer(accept, 0, 2000)
				time.Sleep(time.Minute)
				stop()
				n := <-taken
				if want := map[Persist]int{PersistOutage: 100, PersistAlways: 2000}[persist]; n < want {
					t.Errorf("%d taken, want %d at least", n, want)
				}
				returned := l.order[FateReturned]
				if l.count(t, FateReturned) != n || !slices.IsSorted(returned) {
					t.Errorf("%d of %d given back, in order: %v", len(returned), n, slices.IsSorted(returned))
				}
				if s := route.Stats(); s.DroppedTotal() != 0 || s.DiskMessages != 0 {
					t.Errorf("%d dropped, %d left on disk", s.DroppedTotal(), s.DiskMessages)
				}
			})
		})
	}
}

// What is purged while it is being delivered has no place on disk any more: it is given back before what came later, all the same.
func TestUpstreamGetsBackInOrderWhatWasPurged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStoredTest(t, PersistAlways, spool.SyncInterval)
		s.buf.mu.Lock() // its goroutines run already
		s.buf.opts.SettleStored = false
		s.buf.mu.Unlock()
		s.buf.setSink(false)
		<-s.ledger.offer(s.buf.put, 0, 10)
		time.Sleep(time.Second)
		s.buf.take(s.buf.lanes[0], Limits{Messages: 4, Bytes: 1 << 20})
		if n, err := s.buf.purge(t.Context()); n != 6 || err != nil {
			t.Errorf("%d purged, %v; want all but the four that are being delivered", n, err)
		}
		<-s.ledger.offer(s.buf.put, 10, 20)
		time.Sleep(time.Second)
		if err := s.close(t); err != nil {
			t.Fatal(err)
		}
		if returned := s.ledger.order[FateReturned]; len(returned) != 14 || !slices.IsSorted(returned) {
			t.Errorf("given back: %v, want the four and ten more in order", returned)
		}
	})
}

// When memory is full because the sink is slow, what upstream keeps waits there, and nothing goes to disk.
func TestUpstreamKeepsWhatMemoryHasNoRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		o := testOptions(t)
		o.Delivery.Ordering = OrderStrict
		o.Buffer = BufferOptions{Memory: 100_000, Disk: 1 << 30, Persist: PersistOverflow, WhenFull: Block}
		sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 8}, latency: time.Second, answer: deliverAll}
		route, accept, stop := start(t, o, sink)
		taken := l.offer(accept, 0, 1000)
		time.Sleep(10 * time.Second)
		if s := route.Stats(); s.MemoryBytes > 100_000 || s.Spilled != 0 {
			t.Errorf("%d bytes in memory, %d messages spilled; want at most 100,000, and none", s.MemoryBytes, s.Spilled)
		}
		if n := <-taken; n != 1000 {
			t.Fatalf("%d taken", n)
		}
		time.Sleep(5 * time.Minute)
		stop()
		checkArrivals(t, sink.arrived, 1000, OrderStrict)
	})
}

// When all that is in memory has become too old while the sink failed, there must be something new to try the sink with.
func TestUpstreamIsNotHeldBackForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		down, l := true, newLedger()
		o := testOptions(t)
		o.Buffer.MaxAge, o.Buffer.WhenFull = time.Minute, Block
		route, accept, stop := start(t, o, switchSink(&down, &mu))
		<-l.offer(accept, 0, 1)
		time.Sleep(2 * time.Minute)
		taken := l.offer(accept, 1, 10)
		time.Sleep(time.Second)
		mu.Lock()
		down = false
		mu.Unlock()
		time.Sleep(10 * time.Second)
		stop()
		if n, s := <-taken, route.Stats(); n != 9 || s.Delivered+s.Dropped[DropMaxAge] != 10 || l.count(t, FateDone) != 10 {
			t.Errorf("%d taken, %d delivered, %v dropped, %d done; want 9, and all 10 done", n, s.Delivered, s.Dropped, l.count(t, FateDone))
		}
	})
}

// What upstream keeps and the disk loses is given back at once.
func TestUpstreamGetsBackWhatTheDiskLoses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStoredTest(t, PersistAlways, spool.SyncInterval)
		s.buf.mu.Lock() // its goroutines run already
		s.buf.opts.SettleStored = false
		s.buf.opts.Memory = 200_000
		s.buf.mu.Unlock()
		s.buf.setSink(false)
		<-s.ledger.offer(s.buf.put, 0, 2000)
		synctest.Wait()
		segments, err := filepath.Glob(filepath.Join(s.dir, "*.seg"))
		if err != nil || len(segments) != 1 {
			t.Fatal(segments, err)
		}
		info, err := os.Stat(segments[0])
		if err != nil {
			t.Fatal(err)
		}
		damage(t, segments[0], info.Size()-1000)
		delivered := drainInOrder(t, s.buf)
		returned := s.ledger.count(t, FateReturned)
		if returned == 0 || delivered+returned != 2000 || s.ledger.count(t, FateDone) != delivered {
			t.Errorf("%d delivered, %d given back, of 2,000", delivered, returned)
		}
		if err := s.close(t); err != nil {
			t.Fatal(err)
		}
	})
}

// damage flips the bits of a byte of a file.
func damage(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] = ^b[0]
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// A message that is given up, left out, or a dead letter is done upstream.
func TestUpstreamHearsOfWhatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		o := testOptions(t)
		o.Stage = func(m *Message) (Verdict, error) {
			if string(m.Data) == "000001" {
				return Filtered, nil
			}
			return Pass, nil
		}
		o.Buffer.Memory = 1 << 20
		_, accept, stop := start(t, o, &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 8}, answer: refusing("000002")})
		looping, large := l.message(3), l.message(4)
		looping.Header = Header{HeaderVia: {"vm-17/orders"}}
		large.Data = make([]byte, 2<<20)
		for _, m := range []*Message{l.message(0), l.message(1), l.message(2), looping, large} {
			if err := accept(m); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if n := l.count(t, FateDone); n != 5 {
			t.Errorf("%d done, want 5: %v", n, l.fates)
		}
		stop()
	})
}

// A storedTest is a buffer whose messages are settled once they are fsynced, over a disk that can be made to fail.
type storedTest struct {
	fs     *faultyFS
	dir    string
	opts   BufferOptions
	ledger *ledger
	drops  *drops
	buf    *buffer
}

func newStoredTest(t *testing.T, persist Persist, sync spool.SyncMode) *storedTest {
	s := &storedTest{
		fs: &faultyFS{FS: spool.OS()}, dir: t.TempDir(), ledger: newLedger(), drops: newDrops(zerolog.Nop()),
		opts: BufferOptions{
			Memory: 1 << 20, Disk: 1 << 30, Persist: persist, WhenFull: Block,
			SettleStored: true, Sync: sync, SyncInterval: 200 * time.Millisecond,
		},
	}
	s.open(t)
	return s
}

func (s *storedTest) open(t *testing.T) {
	t.Helper()
	lost := &lostRecords{}
	// The spool's own fsync must not do the buffer's work.
	disk, err := spool.Open(s.dir, spool.Options{FS: s.fs, MaxBytes: s.opts.Disk, Sync: s.opts.Sync, SyncInterval: time.Hour, OnDamage: lost.add})
	if err != nil {
		t.Fatal(err)
	}
	s.buf = newBuffer(s.opts, disk, 1, OrderStrict, &counters{}, s.drops, zerolog.Nop())
	s.buf.lost = lost
	s.buf.setSink(true)
	s.buf.start()
}

func (s *storedTest) close(t *testing.T) error {
	t.Helper()
	s.buf.stopPuts()
	s.buf.stopTakes()
	return s.buf.close()
}

// With SettleStored a message is settled once it is fsynced, not before; a disk that fails to fsync settles nothing until it works again.
func TestUpstreamIsToldWhatIsStored(t *testing.T) {
	for name, mode := range map[string]spool.SyncMode{"each": spool.SyncEach, "interval": spool.SyncInterval} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStoredTest(t, PersistAlways, mode)
				eio := syscall.EIO
				s.fs.syncFault.Store(&eio)
				<-s.ledger.offer(s.buf.put, 0, 500)
				time.Sleep(10 * time.Second)
				if n := s.ledger.count(t, FateStored); n != 0 || len(s.ledger.fates) != 0 {
					t.Errorf("fsync fails, and yet: %v", s.ledger.fates)
				}
				if n := s.buf.depth().disk; n != 500 {
					t.Fatalf("%d on disk, want 500: the test tests nothing", n)
				}
				s.fs.syncFault.Store(nil)
				time.Sleep(10 * time.Second)
				if n := s.ledger.count(t, FateStored); n != 500 {
					t.Errorf("%d stored once fsync works, want 500", n)
				}
				if err := s.close(t); err != nil {
					t.Fatal(err)
				}
				s.open(t)
				if n := drainInOrder(t, s.buf); n != 500 {
					t.Errorf("%d delivered after the restart, want 500", n)
				}
				if err := s.close(t); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// What is delivered before it is fsynced is done then, and is not stored a second time.
func TestUpstreamIsToldOnceOfWhatIsDeliveredFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStoredTest(t, PersistAlways, spool.SyncInterval)
		eio := syscall.EIO
		s.fs.syncFault.Store(&eio)
		<-s.ledger.offer(s.buf.put, 0, 100)
		synctest.Wait()
		if n := drainInOrder(t, s.buf); n != 100 {
			t.Fatalf("%d delivered", n)
		}
		if n := s.ledger.count(t, FateDone); n != 100 {
			t.Errorf("%d done, want 100", n)
		}
		s.fs.syncFault.Store(nil)
		time.Sleep(10 * time.Second)
		if n := s.ledger.count(t, FateDone); n != 100 {
			t.Errorf("%d done, want 100", n)
		}
		if err := s.close(t); err != nil {
			t.Fatal(err)
		}
	})
}

// On a stop what is in memory is put on disk and is stored then; if the disk does not take it, it is given back in order, and none is dropped.
func TestUpstreamOnAStopWithStored(t *testing.T) {
	for name, fails := range map[string]bool{"the disk works": false, "the disk fails": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStoredTest(t, PersistOverflow, spool.SyncInterval)
				<-s.ledger.offer(s.buf.put, 0, 500)
				fate := FateStored
				if fails {
					fate = FateReturned
					eio := syscall.EIO
					s.fs.fault.Store(&eio)
				}
				if err := s.close(t); (err != nil) != fails {
					t.Errorf("close: %v", err)
				}
				if n, order := s.ledger.count(t, fate), s.ledger.order[fate]; n != 500 || !slices.IsSorted(order) {
					t.Errorf("%d of 500 have fate %d, want all, in order: %v", n, fate, order)
				}
				if d := s.drops.snapshot(); len(d) > 0 {
					t.Errorf("dropped: %v", d)
				}
			})
		})
	}
}

// An offeringSource offers one message after the other from Run itself.
type offeringSource struct{ ledger *ledger }

func (s offeringSource) Run(ctx context.Context, accept func(*Message) error) error {
	for n := 0; ctx.Err() == nil; n++ {
		if accept(s.ledger.message(n)) != nil {
			break
		}
	}
	return nil
}

func (offeringSource) Close(context.Context) error { return nil }

// A stop does not wait for a source that is being held back because the sink is down: that would take all of drain_timeout.
func TestUpstreamHeldBackDoesNotHoldUpAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		down, l := true, newLedger()
		o := testOptions(t)
		o.Buffer.WhenFull = Block
		route, err := NewRoute(o, offeringSource{l}, switchSink(&down, &mu), zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		r := Start(t.Context(), planOf(25*time.Second, route), zerolog.Nop())
		time.Sleep(time.Minute)
		begun := time.Now()
		r.Stop()
		if err := r.Wait(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
		if s := route.Stats(); l.count(t, FateReturned) == 0 || l.count(t, FateReturned) != len(l.fates) || s.MemoryMessages != 0 {
			t.Errorf("%d given back of %d", l.count(t, FateReturned), len(l.fates))
		}
	})
}

// What is purged while it is being delivered, and never is, is lost and counted, though upstream knows it as stored.
func TestUpstreamStoredAndPurged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStoredTest(t, PersistAlways, spool.SyncInterval)
		<-s.ledger.offer(s.buf.put, 0, 10)
		time.Sleep(time.Second)
		s.buf.take(s.buf.lanes[0], Limits{Messages: 4, Bytes: 1 << 20})
		if n, err := s.buf.purge(t.Context()); n != 6 || err != nil {
			t.Errorf("%d purged, %v; want all but the four that are being delivered", n, err)
		}
		if err := s.close(t); err != nil {
			t.Fatal(err)
		}
		if d := s.drops.snapshot(); s.ledger.count(t, FateStored) != 10 || d[DropPurged] != 6 || d[DropBufferFull] != 4 {
			t.Errorf("%d stored, dropped: %v", s.ledger.count(t, FateStored), d)
		}
	})
}

// What has been on disk only and is delivered before it is fsynced is done, and not given back when the last fsync fails, too.
func TestUpstreamStoredReadBackAndDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5000 // more than memory holds
		s := newStoredTest(t, PersistAlways, spool.SyncInterval)
		eio := syscall.EIO
		s.fs.syncFault.Store(&eio)
		<-s.ledger.offer(s.buf.put, 0, n)
		if delivered := drainInOrder(t, s.buf); delivered != n {
			t.Fatalf("%d delivered", delivered)
		}
		if err := s.close(t); err == nil {
			t.Error("the last fsync has not failed: the test tests nothing")
		}
		if done, returned := s.ledger.count(t, FateDone), s.ledger.count(t, FateReturned); done != n || returned != 0 {
			t.Errorf("%d done and %d given back, all %d were delivered", done, returned, n)
		}
	})
}

// What is purged while it is being delivered, and before it is fsynced, is not done upstream until it is delivered, or given up and counted.
func TestUpstreamStoredPurgedBeforeItIsDone(t *testing.T) {
	for _, delivered := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newStoredTest(t, PersistAlways, spool.SyncInterval)
			eio := syscall.EIO
			s.fs.syncFault.Store(&eio)
			<-s.ledger.offer(s.buf.put, 0, 10)
			time.Sleep(time.Second)
			batch := s.buf.take(s.buf.lanes[0], Limits{Messages: 4, Bytes: 1 << 20})
			if n, err := s.buf.purge(t.Context()); n != 6 || err != nil {
				t.Errorf("%d purged, %v; want all but the four that are being delivered", n, err)
			}
			if n := s.ledger.count(t, FateDone); n != 6 {
				t.Errorf("%d done, want the six that were purged", n)
			}
			if delivered {
				out := make([]Outcome, len(batch))
				for i := range out {
					out[i].Status = Delivered
				}
				s.buf.settle(s.buf.lanes[0], out)
			}
			s.fs.syncFault.Store(nil)
			if err := s.close(t); err != nil {
				t.Fatal(err)
			}
			if n, d := s.ledger.count(t, FateDone), s.drops.snapshot(); n != 10 || delivered != (d[DropBufferFull] == 0) {
				t.Errorf("delivered %t: %d done, dropped: %v", delivered, n, d)
			}
		})
	}
}
