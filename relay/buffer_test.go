package relay

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/rs/zerolog"
	"pgregory.net/rapid"
)

var modelSteps = flag.Int("model.steps", 400, "operations in each run of the buffer's model test (there are 100 runs, or as -rapid.checks says)")

// A bufferModel puts a buffer under test: a driver that plays source and lanes, and a model that knows what must come next.
type bufferModel struct {
	t        *rapid.T
	dir      string
	opts     BufferOptions
	ordering Ordering
	lanes    int
	ledger   *ledger // nil: messages come without receipts

	buf     *buffer
	drops   *drops
	put     int              // messages put so far; each carries its number
	waiting map[string][]int // numbers not settled, in order, by what is kept in order
	down    bool
}

// lineOf returns what a subject has to stay in order with.
func (bm *bufferModel) lineOf(subject string) string {
	if bm.ordering == OrderStrict {
		return ""
	}
	return subject
}

func (bm *bufferModel) open() {
	disk, err := spool.Open(bm.dir, spool.Options{MaxBytes: bm.opts.Disk, SegmentBytes: 64 << 10, Sync: spool.SyncNever})
	if err != nil {
		bm.t.Fatal(err)
	}
	bm.drops = newDrops(zerolog.Nop())
	bm.buf = newBuffer(bm.opts, disk, bm.lanes, bm.ordering, &counters{}, bm.drops, zerolog.Nop())
	bm.buf.setSink(bm.down)
	bm.buf.start()
	synctest.Wait()
}

func (bm *bufferModel) restart() {
	bm.buf.stopPuts()
	bm.buf.stopTakes()
	if err := bm.buf.close(); err != nil {
		bm.t.Fatal(err)
	}
	if n := bm.drops.snapshot(); len(n) > 0 {
		bm.t.Fatalf("dropped: %v", n)
	}
	if bm.ledger != nil {
		bm.checkLedger()
	}
	bm.open()
}

// kept reports whether upstream keeps the messages until they are delivered.
func (bm *bufferModel) kept() bool { return bm.ledger != nil && !bm.opts.SettleStored }

// checkLedger makes sure that by the end of a run each message is settled upstream once: as done if it was delivered; else as stored, and then it comes
// after the restart; or as returned, in order, and then it does not.
func (bm *bufferModel) checkLedger() {
	var left []int
	for _, line := range bm.waiting {
		left = append(left, line...)
	}
	slices.Sort(left)
	if bm.kept() {
		if returned := bm.ledger.order[FateReturned]; !slices.Equal(returned, left) {
			bm.t.Fatalf("given back: %v, want %v", returned, left)
		}
		bm.ledger.order[FateReturned] = nil
		clear(bm.waiting)
	} else if n := len(bm.ledger.order[FateReturned]); n > 0 {
		bm.t.Fatalf("%d given back although the disk works", n)
	}
	for n := 1; n <= bm.put; n++ {
		fates := bm.ledger.fates[n]
		if _, waits := slices.BinarySearch(left, n); len(fates) != 1 || waits && fates[0] == FateDone {
			bm.t.Fatalf("message %d was settled as %v; not delivered: %v", n, fates, waits)
		}
	}
}

// wouldWait reports whether a put would wait for the sink, or for room that only the sink can make.
func (bm *bufferModel) wouldWait() bool {
	bm.buf.mu.Lock()
	defer bm.buf.mu.Unlock()
	return bm.kept() && (bm.buf.holdsBack() || !bm.buf.spilling && !bm.buf.fits(61_000))
}

func (bm *bufferModel) putOne() {
	if bm.wouldWait() {
		return
	}
	subject := fmt.Sprintf("s.%d", rapid.IntRange(0, 5).Draw(bm.t, "subject"))
	size := rapid.SampledFrom([]int{0, 10, 500, 5000, 60_000}).Draw(bm.t, "size")
	bm.put++
	data := append([]byte(strconv.Itoa(bm.put)+" "), make([]byte, size)...)
	m := &Message{Subject: subject, ID: "x", Data: data, Time: time.Now()}
	if bm.ledger != nil {
		m.Receipt = entry{bm.ledger, bm.put}
	}
	if err := bm.buf.put(m); err != nil {
		bm.t.Fatalf("put %d: %v", bm.put, err)
	}
	line := bm.lineOf(subject)
	bm.waiting[line] = append(bm.waiting[line], bm.put)
	synctest.Wait()
	if held, most := bm.buf.depth().memoryBytes, bm.opts.Memory+70_000; held > most {
		bm.t.Fatalf("%d bytes in memory, the bound is %d and one message", held, bm.opts.Memory)
	}
}

// deliver lets one lane take a batch, or go on with the one it has, and settles some of it.
func (bm *bufferModel) deliver() {
	l := bm.buf.lanes[rapid.IntRange(0, bm.lanes-1).Draw(bm.t, "lane")]
	if len(l.batch) == 0 && l.queue.len() == 0 {
		return
	}
	batch := bm.buf.take(l, Limits{Messages: rapid.IntRange(1, 50).Draw(bm.t, "batch"), Bytes: 100_000})
	seen := map[string]int{} // messages of each line that stand before in this batch
	out := make([]Outcome, len(batch))
	settleUpTo := rapid.IntRange(0, len(batch)).Draw(bm.t, "settle")
	settled := map[string]int{}
	for i, m := range batch {
		line := bm.lineOf(m.Subject)
		var got int
		fmt.Sscanf(string(m.Data), "%d ", &got)
		if want := bm.waiting[line][seen[line]]; got != want {
			bm.t.Fatalf("lane offers message %d of %q, want %d", got, line, want)
		}
		seen[line]++
		if bm.opts.Persist == PersistAlways && m.record == 0 {
			bm.t.Fatalf("message %d is offered before it is on disk", got)
		}
		if i < settleUpTo {
			out[i].Status = Delivered
			settled[line]++
		}
	}
	bm.buf.settle(l, out)
	for line, n := range settled {
		bm.waiting[line] = bm.waiting[line][n:]
	}
	synctest.Wait()
}

func (bm *bufferModel) left() int {
	n := 0
	for _, w := range bm.waiting {
		n += len(w)
	}
	return n
}

// The model test: whatever the order of puts, deliveries, partial settles, outages and restarts,
// every line of messages comes out as it went in, none missing, none twice, within the bound of memory.
func TestBufferKeepsOrderThroughMemoryAndDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Without Deadline, which must not be called in a bubble.
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) {
			bm := &bufferModel{
				t:   rt,
				dir: filepath.Join(mkdirTemp(rt), "spool"),
				opts: BufferOptions{
					Memory: 300_000, Disk: 1 << 30, SpillAfter: time.Second, WhenFull: Block,
					Persist: rapid.SampledFrom([]Persist{PersistOverflow, PersistOutage, PersistAlways}).Draw(rt, "persist"),
				},
				ordering: rapid.SampledFrom([]Ordering{OrderStrict, OrderSubject}).Draw(rt, "ordering"),
				lanes:    1,
				waiting:  map[string][]int{},
			}
			switch rapid.SampledFrom([]string{"none", "delivered", "stored"}).Draw(rt, "receipts") {
			case "delivered":
				bm.ledger = newLedger()
			case "stored":
				bm.ledger, bm.opts.SettleStored, bm.opts.SyncInterval = newLedger(), true, 200*time.Millisecond
			}
			if bm.ordering == OrderSubject {
				bm.lanes = rapid.IntRange(1, 4).Draw(rt, "lanes")
			}
			bm.open()
			for range *modelSteps {
				switch op := rapid.IntRange(0, 99).Draw(rt, "op"); {
				case op < 50:
					bm.putOne()
				case op < 92:
					bm.deliver()
				case op < 96:
					bm.down = !bm.down
					bm.buf.setSink(bm.down)
				case op < 98:
					time.Sleep(2 * time.Second)
					synctest.Wait()
				default:
					bm.restart()
				}
			}
			bm.down = false
			bm.buf.setSink(false)
			for stuck := 0; bm.left() > 0; stuck++ {
				before := bm.left()
				for _, l := range bm.buf.lanes {
					bm.drainLane(l)
				}
				if bm.left() < before {
					stuck = 0
				}
				if stuck > 3 {
					rt.Fatalf("%d messages never come: %+v", bm.left(), bm.waiting)
				}
			}
			bm.restart()
			if d := bm.buf.depth(); d.memory != 0 || d.disk != 0 {
				rt.Fatalf("all is settled, but the buffer holds %+v", d)
			}
			bm.buf.stopPuts()
			bm.buf.stopTakes()
			if err := bm.buf.close(); err != nil {
				rt.Fatal(err)
			}
		})
	})
}

// mkdirTemp makes a folder for one run of the model, of which there are many.
func mkdirTemp(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "natsrelay-model-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (bm *bufferModel) drainLane(l *lane) {
	for len(l.batch) > 0 || l.queue.len() > 0 {
		batch := bm.buf.take(l, Limits{Messages: 1000, Bytes: 1 << 20})
		out := make([]Outcome, len(batch))
		for i, m := range batch {
			line := bm.lineOf(m.Subject)
			if got := string(m.Data[:len(strconv.Itoa(bm.waiting[line][0]))]); got != strconv.Itoa(bm.waiting[line][0]) {
				bm.t.Fatalf("lane offers message %s of %q, want %d", got, line, bm.waiting[line][0])
			}
			bm.waiting[line] = bm.waiting[line][1:]
			out[i].Status = Delivered
		}
		bm.buf.settle(l, out)
		synctest.Wait()
	}
}

// When all that is ready has become too old, what waits behind it on disk is read, and whoever waits for its room gets it, though no message
// comes that would set them going.
func TestBufferGoesOnBehindWhatIsTooOld(t *testing.T) {
	message := func(size int) *Message {
		return &Message{Subject: "s", ID: "x", Data: make([]byte, size), Time: time.Now()}
	}
	for name, tc := range map[string]struct {
		disk int64
		old  int // messages that become too old
		next int // size of the one behind them
	}{"on disk": {1 << 30, 3000, 1}, "waiting for room": {0, 700, 900_000}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var disk *spool.Spool
				if tc.disk > 0 {
					var err error
					if disk, err = spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{MaxBytes: tc.disk}); err != nil {
						t.Fatal(err)
					}
				}
				o := BufferOptions{Memory: 1 << 20, Disk: tc.disk, Persist: PersistOverflow, WhenFull: Block, MaxAge: time.Minute}
				b := newBuffer(o, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.Nop()), zerolog.Nop())
				b.start()
				for range tc.old {
					if err := b.put(message(1000)); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Minute)
				next := message(tc.next)
				put := make(chan error, 1)
				go func() { put <- b.put(next) }()
				synctest.Wait()
				taken := make(chan []*Message, 1)
				go func() { taken <- b.take(b.lanes[0], Limits{Messages: 10, Bytes: 1 << 20}) }()
				time.Sleep(time.Second)
				b.stopPuts()
				b.stopTakes()
				if batch := <-taken; len(batch) != 1 || len(batch[0].Data) != tc.next {
					t.Errorf("%d messages taken, want the one behind those that are too old", len(batch))
				}
				if err := <-put; err != nil {
					t.Error(err)
				}
				if err := b.close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// What has become too old is gone from the disk, too, though the lane that has found it out has nothing to deliver and waits.
func TestBufferSettlesWhatIsTooOldOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, err := spool.Open(filepath.Join(t.TempDir(), "spool"), spool.Options{MaxBytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		o := BufferOptions{Memory: 1 << 20, Disk: 1 << 30, Persist: PersistOutage, WhenFull: Block, MaxAge: time.Minute}
		b := newBuffer(o, disk, 1, OrderStrict, &counters{}, newDrops(zerolog.Nop()), zerolog.Nop())
		b.setSink(true)
		b.start()
		for range 3 {
			if err := b.put(&Message{Subject: "s", ID: "x", Time: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		b.setSink(false)
		synctest.Wait()
		if n := disk.Stats().Records; n != 3 {
			t.Fatalf("%d on disk: the test tests nothing", n)
		}
		time.Sleep(2 * time.Minute)
		go b.take(b.lanes[0], Limits{Messages: 10, Bytes: 1 << 20})
		time.Sleep(time.Second)
		if d := b.depth(); d.memory != 0 || d.disk != 0 {
			t.Errorf("%d in memory and %d on disk, all of them too old", d.memory, d.disk)
		}
		b.stopPuts()
		b.stopTakes()
		if err := b.close(); err != nil {
			t.Fatal(err)
		}
	})
}
