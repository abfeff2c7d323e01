package relay

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/rs/zerolog"
)

// toPutBack returns n messages of one subject.
func toPutBack(n, size int) []*Stored {
	batch := make([]*Stored, n)
	for i := range batch {
		data := fmt.Appendf(nil, "again %06d %s", i, strings.Repeat("x", size))
		batch[i] = &Stored{Message: Message{Subject: "s.0", ID: fmt.Sprintf("again-%d", i), Data: data, Time: time.Now().Add(-time.Hour)}}
	}
	return batch
}

// onOffSink delivers while it is up.
func onOffSink() (sink *scriptSink, up *atomic.Bool) {
	up = new(atomic.Bool)
	return &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 8}, answer: func(batch []*Message, out []Outcome) error {
		if !up.Load() {
			return errDown
		}
		return deliverAll(batch, out)
	}}, up
}

// What is put back while the sink is down is on disk when Replay returns, behind what was there, and before what comes later.
func TestReplayIsSafeAndInOrder(t *testing.T) {
	for _, persist := range []Persist{PersistOverflow, PersistOutage, PersistAlways} {
		synctest.Test(t, func(t *testing.T) {
			o := testOptions(t)
			o.Buffer.Disk, o.Buffer.Persist, o.Buffer.SpillAfter = 1<<30, persist, time.Hour
			o.Delivery.Ordering = OrderStrict
			sink, up := onOffSink()
			answer, late := sink.answer, 0
			sink.answer = func(batch []*Message, out []Outcome) error {
				for _, m := range batch {
					if m.Late && up.Load() {
						late++
					}
				}
				return answer(batch, out)
			}
			route, accept, stop := start(t, o, sink)
			publish(t, accept, 5, 1)
			if n, err := route.Replay(t.Context(), toPutBack(2000, 10)); n != 2000 || err != nil {
				t.Fatalf("%d taken, %v", n, err)
			}
			if s := route.Stats(); s.DiskMessages != 2005 || s.Received != 5 {
				t.Errorf("%d on disk, %d received, want 2,005 and 5", s.DiskMessages, s.Received)
			}
			publish(t, accept, 3, 1)
			up.Store(true)
			time.Sleep(time.Hour)
			stop()
			if len(sink.arrived) != 2008 || sink.arrived[4] != "s.0 000004" || sink.arrived[5] != "s.0 again 000000 xxxxxxxxxx" || sink.arrived[2005] != "s.0 000000" {
				t.Errorf("%d arrived: %q …", len(sink.arrived), sink.arrived[:min(7, len(sink.arrived))])
			}
			if late != 2000 {
				t.Errorf("the sink is told of %d messages that they were put back, want 2,000", late)
			}
			if !slices.IsSorted(sink.arrived[5:2005]) {
				t.Error("what was put back came out of order")
			}
		})
	}
}

// A route that delivers is done with what is put back soon, and spills no longer than it has to.
func TestReplayIntoARouteThatFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Buffer.Disk = 1 << 30
		sink, up := onOffSink()
		up.Store(true)
		route, _, stop := start(t, o, sink)
		for range 3 {
			if n, err := route.Replay(t.Context(), toPutBack(500, 10)); n != 500 || err != nil {
				t.Fatalf("%d taken, %v", n, err)
			}
		}
		time.Sleep(time.Minute)
		if s := route.Stats(); s.State != StateFlowing || s.Delivered != 1500 || s.DiskMessages != 0 {
			t.Errorf("stats %+v", s)
		}
		stop()
	})
}

// Nothing gives way to what is put back.
func TestReplayIntoAFullRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Buffer.Memory, o.Buffer.Disk, o.Buffer.WhenFull = 1<<20, 16<<20, DropOldest
		sink, _ := onOffSink()
		route, accept, stop := start(t, o, sink)
		publish(t, accept, 100, 1)
		taken := 0
		for {
			n, err := route.Replay(t.Context(), toPutBack(100, 1000))
			taken += n
			if errors.Is(err, ErrFull) {
				break
			}
			if err != nil || taken > 30_000 {
				t.Fatalf("%d taken, %v", taken, err)
			}
		}
		if s := route.Stats(); taken < 5000 || s.DroppedTotal() != 0 || s.DiskMessages != taken+100 {
			t.Errorf("%d taken, stats %+v", taken, s)
		}
		stop()
	})
}

// Without a disk, messages are safe once they are delivered; who does not wait for that is told.
func TestReplayWithoutDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink, up := onOffSink()
		route, _, stop := start(t, testOptions(t), sink)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if n, err := route.Replay(ctx, toPutBack(10, 10)); n != 10 || !errors.Is(err, errUnsafe) {
			t.Errorf("while the sink is down: %d taken, %v", n, err)
		}
		up.Store(true)
		if n, err := route.Replay(t.Context(), toPutBack(10, 10)); n != 10 || err != nil {
			t.Errorf("once it is up: %d taken, %v", n, err)
		}
		stop()
		if len(sink.arrived) != 20 {
			t.Errorf("%d arrived, want 20", len(sink.arrived))
		}
	})
}

func TestReplayRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Buffer.Memory = 1 << 20
		sink, _ := onOffSink()
		route, _, stop := start(t, o, sink)
		if n, err := route.Replay(t.Context(), toPutBack(1, 2<<20)); n != 0 || err == nil {
			t.Errorf("larger than the buffer: %d taken, %v", n, err)
		}
		stop()
		if n, err := route.Replay(t.Context(), toPutBack(1, 10)); n != 0 || !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %d taken, %v", n, err)
		}
	})
}

// A purge drops and counts what is on disk; what is being delivered, and what comes later, still is delivered.
func TestPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Buffer.Memory, o.Buffer.Disk = 1<<20, 1<<30
		o.Delivery.Ordering = OrderStrict
		sink, up := onOffSink()
		route, accept, stop := start(t, o, sink)
		publish(t, accept, 20_000, 1)
		time.Sleep(time.Minute)
		n, err := route.Purge(t.Context())
		tried := 20_000 - n
		if tried < 1 || tried > 10 || err != nil {
			t.Errorf("%d purged, %v; want all but the batch that the sink is tried with", n, err)
		}
		if s := route.Stats(); s.DiskMessages != 0 || s.Dropped[DropPurged] != uint64(n) {
			t.Errorf("stats %+v", s)
		}
		publish(t, accept, 100, 1)
		up.Store(true)
		time.Sleep(time.Minute)
		if s := route.Stats(); s.Delivered != uint64(100+tried) || s.State != StateFlowing {
			t.Errorf("afterwards: %+v", s)
		}
		if n, err := route.Purge(t.Context()); n != 0 || err != nil {
			t.Errorf("nothing purged: %d, %v", n, err)
		}
		stop()
		if _, err := route.Purge(t.Context()); err == nil {
			t.Error("a route that has ended is purged")
		}
	})
}

// syncedFS is the real file system, and knows whether what was written last has been fsynced.
type syncedFS struct {
	spool.FS
	synced atomic.Bool
}

func (f *syncedFS) OpenFile(name string, flag int) (spool.File, error) {
	file, err := f.FS.OpenFile(name, flag)
	return syncedFile{file, f, strings.HasSuffix(name, ".seg")}, err
}

type syncedFile struct {
	spool.File
	fs      *syncedFS
	segment bool
}

func (f syncedFile) WriteAt(p []byte, off int64) (int, error) {
	if f.segment {
		f.fs.synced.Store(false)
	}
	return f.File.WriteAt(p, off)
}

func (f syncedFile) Sync() error {
	err := f.File.Sync()
	if f.segment && err == nil {
		f.fs.synced.Store(true)
	}
	return err
}

// What is put back is on the device when Replay returns, whatever the route's sync says: its other copy may be deleted then.
func TestReplayIsFsynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &syncedFS{FS: spool.OS()}
		disk, err := spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{FS: fs, MaxBytes: 1 << 30, Sync: spool.SyncNever})
		if err != nil {
			t.Fatal(err)
		}
		opts := BufferOptions{Memory: 1 << 20, Disk: 1 << 30, Persist: PersistOverflow, Sync: spool.SyncNever}
		b := newBuffer(opts, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.Nop()), zerolog.Nop())
		b.start()
		for range 5 {
			if n, err := b.replay(t.Context(), toPutBack(100, 10)); n != 100 || err != nil {
				t.Fatalf("%d taken, %v", n, err)
			}
			if !fs.synced.Load() {
				t.Fatal("not fsynced")
			}
		}
		b.stopPuts()
		b.stopTakes()
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
}

// What is put back while the route ends counts as safe only if the last fsync has worked.
func TestReplayAtTheEndOfADiskThatFails(t *testing.T) {
	for name, broken := range map[string]bool{"the disk works": false, "the disk fails": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs := &faultyFS{FS: spool.OS()}
				disk, err := spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{FS: fs, MaxBytes: 1 << 30, Sync: spool.SyncNever})
				if err != nil {
					t.Fatal(err)
				}
				b := newBuffer(BufferOptions{Memory: 1 << 20, Disk: 1 << 30}, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.Nop()), zerolog.Nop())
				b.start()
				batch := toPutBack(10, 10)
				if n, err := b.replay(t.Context(), batch); n != 10 || err != nil {
					t.Fatalf("%d taken, %v", n, err)
				}
				if err := b.put(&Message{Subject: "s", ID: "x", Data: []byte("x"), Time: time.Now()}); err != nil {
					t.Fatal(err)
				}
				if eio := syscall.EIO; broken {
					fs.syncFault.Store(&eio)
				}
				b.stopPuts()
				b.stopTakes()
				if err := b.close(); (err != nil) != broken {
					t.Errorf("close: %v", err)
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				if err := b.waitSafe(t.Context(), batch); (err != nil) != broken {
					t.Errorf("who waits for it then is told: %v", err)
				}
			})
		})
	}
}
