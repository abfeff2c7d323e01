package relay

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/rs/zerolog"
)

// A disk that fails is tried again every second; the log has it once, however long that goes on, and whoever asks is told until it
// works, or is not wanted any more.
func TestFailingDiskIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &faultyFS{FS: spool.OS()}
		disk, err := spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{FS: fs, MaxBytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		b := newBuffer(BufferOptions{Memory: 1 << 20, Disk: 1 << 30, Persist: PersistOutage}, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.Nop()), zerolog.New(&log))
		b.start()
		step := func(what string, trouble bool, lines map[string]int) {
			t.Helper()
			synctest.Wait()
			for text, want := range lines {
				if n := strings.Count(log.String(), text); n != want {
					t.Errorf("%s: the log has %q %d times, want %d:\n%s", what, text, n, want, log.String())
				}
			}
			if err := b.depth().diskTrouble; (err != nil) != trouble {
				t.Errorf("%s: the disk's trouble is %v", what, err)
			}
			log.Reset()
		}
		const spilling, failing, works, caughtUp = "spilling to disk: ", "cannot write to disk", "disk works again", "caught up with the disk"
		full := syscall.ENOSPC
		fs.fault.Store(&full)
		b.setSink(true)
		if err := b.put(&Message{Subject: "s", ID: "1", Data: []byte("x"), Time: time.Now()}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		step("an hour", true, map[string]int{spilling: 1, failing: 1, works: 0, caughtUp: 0})
		fs.fault.Store(nil)
		time.Sleep(2 * diskRest)
		step("the disk works", false, map[string]int{spilling: 0, works: 1, caughtUp: 0})
		b.setSink(false)
		step("the sink works", false, map[string]int{caughtUp: 0})
		drainInOrder(t, b)
		step("all is delivered", false, map[string]int{caughtUp: 1})

		fs.fault.Store(&full)
		b.setSink(true)
		if err := b.put(&Message{Subject: "s", ID: "2", Data: []byte("x"), Time: time.Now()}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		step("another hour", true, map[string]int{spilling: 1, failing: 1})
		b.setSink(false)
		step("the disk is not wanted any more", false, map[string]int{works: 0, caughtUp: 1})
		fs.fault.Store(nil)
		b.stopPuts()
		b.stopTakes()
		if err := b.close(); err != nil {
			t.Fatal(err)
		}
	})
}

// What has only been read back into memory is not caught up with: the log has that once all of it is delivered, whether it was there at the
// start or has come since.
func TestCaughtUpIsSaidOnceNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "spool")
		var log bytes.Buffer
		open := func() *buffer {
			disk, err := spool.Open(dir, spool.Options{MaxBytes: 1 << 30})
			if err != nil {
				t.Fatal(err)
			}
			o := BufferOptions{Memory: 1 << 20, Disk: 1 << 30, Persist: PersistOutage, SpillAfter: 2 * time.Second}
			b := newBuffer(o, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.Nop()), zerolog.New(&log))
			b.start()
			return b
		}
		put := func(b *buffer, id string) {
			if err := b.put(&Message{Subject: "s", ID: id, Data: []byte(id), Time: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		said := func(when string, spilling, caughtUp int) {
			t.Helper()
			synctest.Wait()
			for text, want := range map[string]int{"spilling to disk: ": spilling, "caught up with the disk": caughtUp} {
				if n := strings.Count(log.String(), text); n != want {
					t.Errorf("%s: the log has %q %d times, want %d:\n%s", when, text, n, want, log.String())
				}
			}
			log.Reset()
		}
		b := open()
		put(b, "1")
		shut(t, b)
		log.Reset() // it has that the route stops

		b = open()
		said("a start with a backlog", 0, 0)
		b.setSink(true)
		time.Sleep(time.Minute)
		said("the sink has failed for long", 1, 0)
		b.setSink(false)
		said("it works", 0, 0)
		b.setSink(true)
		time.Sleep(time.Minute)
		put(b, "2")
		said("it fails again", 0, 0)
		b.setSink(false)
		if n := drainInOrder(t, b); n != 2 {
			t.Errorf("%d messages, want 2", n)
		}
		said("all is delivered", 0, 1)
		put(b, "3")
		drainInOrder(t, b)
		said("the next one", 0, 0)
		shut(t, b)
	})
}

// While the sink is down and the disk is full, a route with drop_oldest gives up one segment after the other, with long pauses between them. It
// counts as full all the while, and no longer than that.
func TestFullDiskIsFullForAsLongAsTheSinkIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, err := spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{MaxBytes: 4 << 20, SegmentBytes: 256 << 10})
		if err != nil {
			t.Fatal(err)
		}
		var log logBuffer
		o := BufferOptions{Memory: 1 << 20, Disk: 4 << 20, Persist: PersistOutage, WhenFull: DropOldest}
		b := newBuffer(o, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.New(&log)), zerolog.Nop())
		b.start()
		n := 0
		put := func(count int) {
			for range count {
				n++
				if err := b.put(&Message{Subject: "s", ID: "x", Data: fmt.Appendf(make([]byte, 1000), "%06d", n), Time: time.Now()}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		isFull := func(when string, want bool) {
			t.Helper()
			time.Sleep(time.Hour)
			if full, _ := b.condition(); full != want {
				t.Errorf("%s: full is %t, want %t", when, full, want)
			}
		}
		b.setSink(true)
		put(1000)
		isFull("the disk has room", false)
		put(9000)
		isFull("it has none", true)
		if got, want := log.take(), errDiskFull.Error(); !strings.Contains(got, want) {
			t.Errorf("the log does not say %q:\n%s", want, got)
		}
		b.setSink(false)
		isFull("the sink works", false)
		b.setSink(true)
		put(9000)
		isFull("it fails again", true)
		if _, err := b.purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		isFull("somebody has made room", false)
		b.stopPuts()
		b.stopTakes()
		if err := b.close(); err != nil {
			t.Fatal(err)
		}
	})
}
