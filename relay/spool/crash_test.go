package spool

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	crashStates = flag.Int("spool.crashes", 24_000, "distinct crash states in TestCrash")
	crashReplay = flag.String("spool.replay", "", "\"SEED CALL LIFE\" of a failure of TestCrash: run it alone, and show the calls to the file system")
)

// oracle knows what a spool may and must hold after a crash.
type oracle struct {
	recs map[uint64]*fate
	last uint64 // highest number that was ever in
}

type fate struct {
	written []Record // what was ever given to the spool under this number, and may be found
	in      bool     // the spool said so
	stored  bool     // and that it is durable
	settled bool
	safe    bool // the settling is durable
	either  bool // the call in which the crash came was about to settle or drop it
}

func (o *oracle) fate(seq uint64) *fate {
	f := o.recs[seq]
	if f == nil {
		f = &fate{}
		o.recs[seq] = f
	}
	return f
}

// synced: all that is in is durable, and all settling.
func (o *oracle) synced() {
	for _, f := range o.recs {
		if f.in {
			f.stored = true
			f.written = f.written[len(f.written)-1:]
		}
		f.safe = f.settled
	}
}

// crasher runs a random workload until it ends or the machine dies.
type crasher struct {
	t      *testing.T
	fs     *simFS
	s      *Spool
	o      *oracle
	opts   Options
	rng    *rand.Rand
	errs   bool // the disk fails now and then
	note   string
	damage []Damage
	show   bool // every call to the file system, for -spool.replay
}

const crashDir = "/state/q"

func (c *crasher) open() error {
	c.opts.FS = c.fs
	c.opts.OnDamage = func(d Damage) { c.damage = append(c.damage, d) }
	s, err := Open(crashDir, c.opts)
	c.s = s
	return err
}

func (c *crasher) dead() bool { return c.fs.crashAt > 0 && c.fs.calls >= c.fs.crashAt }

func (c *crasher) run(steps int) {
	for range steps {
		for _, f := range c.o.recs {
			f.either = false
		}
		c.step()
		if c.dead() {
			return
		}
	}
}

func (c *crasher) step() {
	switch n := c.rng.IntN(100); {
	case n < 40:
		c.append()
	case n < 65:
		c.settle()
	case n < 80:
		if c.s.Sync() == nil {
			c.o.synced()
		}
	case n < 88:
		_, _ = c.s.Read(c.rng.Uint64N(c.s.LastSeq()+1), 500, nil)
	case n < 96:
		c.drop()
	default:
		if c.s.Close() == nil && c.opts.Sync != SyncNever {
			c.o.synced()
		}
		if !c.dead() {
			if err := c.open(); err != nil && !c.dead() {
				c.fs.fail = nil
				if err = c.open(); err != nil && !c.dead() {
					c.t.Fatalf("%s: open: %v", c.note, err)
				}
			}
		}
	}
}

func (c *crasher) record(seq uint64) Record {
	size := c.rng.IntN(40)
	if c.rng.IntN(10) == 0 {
		size = c.rng.IntN(1500)
	}
	return Record{Seq: seq, Time: int64(seq), Data: fmt.Appendf(nil, "%d/%d:%0*d", seq, c.rng.Uint32(), size, seq)}
}

func (c *crasher) try(seq uint64) Record {
	r := c.record(seq)
	f := c.o.fate(seq)
	f.written = append(f.written, r)
	return r
}

func (c *crasher) append() {
	var recs []Record
	seq := c.s.LastSeq()
	for range 1 + c.rng.IntN(6) {
		seq++
		if c.rng.IntN(20) == 0 {
			seq += c.rng.Uint64N(100)
		}
		recs = append(recs, c.try(seq))
	}
	n, err := c.s.Append(recs)
	for _, r := range recs[:n] {
		f := c.o.fate(r.Seq)
		*f = fate{written: f.written, in: true}
		c.o.last = max(c.o.last, r.Seq)
	}
	if err == nil && c.opts.Sync == SyncEach {
		for _, r := range recs[:n] {
			f := c.o.fate(r.Seq)
			f.stored, f.written = true, []Record{r}
		}
	}
}

func (c *crasher) settle() {
	var seqs []uint64
	reach := []uint64{3, 10, 100}[c.rng.IntN(3)]
	first := c.s.Stats().First
	for range 1 + c.rng.IntN(10) {
		seq := first + c.rng.Uint64N(reach)
		seqs = append(seqs, seq)
		if f := c.o.recs[seq]; f != nil && f.in {
			f.settled, f.either = true, true
		}
	}
	c.s.Settle(seqs)
}

func (c *crasher) drop() {
	c.s.mu.Lock()
	var first, last uint64
	if len(c.s.segs) > 0 {
		first, last = c.s.segs[0].first, c.s.segs[0].last()
	}
	c.s.mu.Unlock()
	_, err := c.s.DropOldest()
	for seq := first; seq <= last && seq > 0; seq++ {
		if f := c.o.recs[seq]; f != nil && f.in {
			f.either = true
			f.settled = f.settled || err == nil
		}
	}
}

// inspect opens what the crash has left, and compares. killed: the machine lives on.
func (c *crasher) inspect(killed bool) {
	if err := c.open(); err != nil {
		c.t.Fatalf("%s: open: %v", c.note, err)
	}
	s := c.s
	found := map[uint64]Record{}
	for from := uint64(0); ; {
		recs, err := s.Read(from, 4000, nil)
		if err != nil {
			c.t.Fatalf("%s: read: %v", c.note, err)
		}
		if len(recs) == 0 {
			break
		}
		for _, r := range keep(recs) {
			if r.Seq < from {
				c.t.Fatalf("%s: %d comes after %d", c.note, r.Seq, from-1)
			}
			from = r.Seq + 1
			found[r.Seq] = r
		}
	}
	for seq, r := range found {
		c.known(seq, r)
	}
	for seq, f := range c.o.recs {
		_, ok := found[seq]
		must := f.stored || killed && f.in
		gone := f.safe || killed && f.settled && !c.errs
		if !ok && must && !f.settled && !f.either && !c.reported(seq) {
			c.t.Fatalf("%s: %d is lost: %+v\nfound %d records, damage %v", c.note, seq, f, len(found), c.damage)
		}
		if ok && gone && !f.either {
			c.t.Fatalf("%s: %d was settled and is here again: %+v", c.note, seq, f)
		}
		if (f.stored && !f.settled || f.safe) && !f.either && s.LastSeq() < seq {
			c.t.Fatalf("%s: LastSeq %d, %d was stored: %+v", c.note, s.LastSeq(), seq, f)
		}
		if ok {
			*f = fate{written: []Record{found[seq]}, in: true, stored: !killed}
		} else {
			delete(c.o.recs, seq)
		}
	}
	for _, d := range c.damage {
		if killed && !c.errs && d.Cause != Torn {
			c.t.Fatalf("%s: kill -9 made damage: %v", c.note, d)
		}
	}
}

// reported: the disk had failed, and the loss was said.
func (c *crasher) reported(seq uint64) bool {
	for _, d := range c.damage {
		if c.errs && d.Records > 0 && d.First <= seq && seq <= d.Last {
			return true
		}
	}
	return false
}

func (c *crasher) known(seq uint64, r Record) {
	f := c.o.recs[seq]
	if f == nil {
		c.t.Fatalf("%s: record %d was never written", c.note, seq)
	}
	for _, w := range f.written {
		if equal(r, w) {
			return
		}
	}
	c.t.Fatalf("%s: record %d has content %q, written was %v", c.note, seq, r.Data, f.written)
}

// goOn shows that the spool works after the crash.
func (c *crasher) goOn() {
	c.fs.fail, c.errs = nil, false
	for range 3 {
		c.append()
		c.settle()
	}
	if err := c.s.Close(); err != nil {
		c.t.Fatalf("%s: close: %v", c.note, err)
	}
	for _, f := range c.o.recs {
		f.either = false
	}
	c.inspect(true)
	_ = c.s.Close()
}

// TestCrash lets the machine die at every call that a random workload makes to the file system, and looks at many of the
// states that the disk may then be in. What counted as stored must be there, in order; nothing may be there that was not
// written; what was settled and synced must not come back; and the spool must go on, also when it dies again on the way.
func TestCrash(t *testing.T) {
	if *crashReplay != "" {
		var seed, life uint64
		var call int
		if _, err := fmt.Sscan(*crashReplay, &seed, &call, &life); err != nil {
			t.Fatal(err)
		}
		crashOnce(t, seed, call, life, true, func(uint64) {})
		return
	}
	var mu sync.Mutex
	states := map[uint64]bool{}
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(states) >= *crashStates/testScale
	}
	var wg sync.WaitGroup
	for worker := range uint64(2) {
		wg.Go(func() {
			for seed := worker; !enough() && !t.Failed(); seed += 2 {
				crashSeed(t, seed, func(h uint64) {
					mu.Lock()
					defer mu.Unlock()
					states[h] = true
				})
			}
		})
	}
	wg.Wait()
	t.Logf("%d distinct crash states", len(states))
}

func crashSeed(t *testing.T, seed uint64, seen func(hash uint64)) {
	total := crashOnce(t, seed, 0, 0, false, seen)
	for crashAt := 1; crashAt <= total; crashAt++ {
		for life := range uint64(4) {
			if t.Failed() {
				return
			}
			crashOnce(t, seed, crashAt, life, false, seen)
		}
	}
}

// crashOnce runs the workload of a seed until a call, and what follows in one of its lives; or to its end if crashAt is 0,
// and returns how many calls that made.
func crashOnce(t *testing.T, seed uint64, crashAt int, life uint64, show bool, seen func(hash uint64)) int {
	c := newCrasher(t, seed)
	c.fs.crashAt, c.show = crashAt, show
	c.note = fmt.Sprintf("-spool.replay '%d %d %d'", seed, crashAt, life)
	c.trace()
	for c.open() != nil && !c.dead() {
	}
	if c.s != nil {
		c.run(40)
	}
	if crashAt == 0 {
		_ = c.s.Close()
		return c.fs.calls
	}
	c.die(rand.New(rand.NewPCG(seed, uint64(crashAt)<<8|life)), life, seen)
	return 0
}

func (c *crasher) trace() {
	if !c.show {
		return
	}
	inner := c.fs.fail
	c.fs.fail = func(call int, op, name string) (n int, err error) {
		if inner != nil {
			n, err = inner(call, op, name)
		}
		if op != "stat" && op != "read" {
			c.t.Log(call, op, name, n, err)
		}
		return n, err
	}
}

func newCrasher(t *testing.T, seed uint64) *crasher {
	rng := rand.New(rand.NewPCG(seed, 0))
	c := &crasher{t: t, fs: newSimFS(crashDir), rng: rng, o: &oracle{recs: map[uint64]*fate{}}, errs: rng.IntN(3) == 0}
	c.opts = Options{
		MaxBytes: 20_000, SegmentBytes: 600 + rng.Int64N(3000), SyncInterval: time.Hour,
		Sync:        []SyncMode{SyncInterval, SyncEach, SyncNever}[rng.IntN(3)],
		Compression: []Compression{None, None, S2}[rng.IntN(3)],
		readBytes:   []int{0, 100, 1000}[rng.IntN(3)],
	}
	if c.errs {
		frng := rand.New(rand.NewPCG(seed, 1))
		c.fs.fail = func(call int, op, name string) (int, error) {
			// A truncation that fails after an fsync that failed can bring a settled record back; it is not among the promises.
			if frng.IntN(40) == 0 && op != "read" && op != "readdir" && op != "stat" && op != "truncate" {
				n := 0
				if op == "write" {
					n = frng.IntN(100)
				}
				return n, []error{syscall.EIO, syscall.ENOSPC, syscall.EROFS}[frng.IntN(3)]
			}
			return 0, nil
		}
	}
	return c
}

// die crashes, checks, goes on, and now and then crashes on the way again.
func (c *crasher) die(rng *rand.Rand, life uint64, seen func(hash uint64)) {
	for again := 0; ; again++ {
		old, killed := c.s, life == 0
		if killed {
			c.fs = c.fs.killed()
		} else {
			c.fs = c.fs.crashed(rng)
		}
		if old != nil {
			_ = old.Close() // its disk is dead: this only ends its goroutine
		}
		seen(c.fs.hash())
		c.trace()
		c.rng = rng
		if again < 2 && rng.IntN(2) == 0 { // the recovery dies too
			c.fs.crashAt = 1 + rng.IntN(40)
			if c.open() == nil {
				_ = c.s.Close()
			}
			c.fs.crashAt = 0
			c.fs.fail = nil
			continue
		}
		c.inspect(killed)
		c.errs, c.damage = false, nil
		if again < 2 && rng.IntN(3) == 0 {
			c.fs.crashAt = c.fs.calls + 1 + rng.IntN(60)
			c.run(15)
			continue
		}
		c.goOn()
		return
	}
}
