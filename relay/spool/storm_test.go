package spool

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	stormTrials = flag.Int("spool.storms", 1500, "trials of TestStorm")
	stormSeed   = flag.Int64("spool.storm", -1, "the seed of a failure of TestStorm: run it alone, as often as -spool.storms says")
)

// TestStorm lets appenders, a reader, settlers, Sync and DropOldest loose on one spool, while calls to the file system fail at random.
// When the disk is well again it must come to rest, with every record that Append took for stored delivered in order, settled,
// dropped or reported, and everything counted right. Or the machine dies in the middle of it: then as in TestCrash.
//
// A seed decides what is done and which calls fail, the scheduler when: a failure may need its seed many times over.
func TestStorm(t *testing.T) {
	before := runtime.NumGoroutine()
	trials := *stormTrials
	if testScale > 1 {
		trials /= 4
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := worker; i < trials && !t.Failed(); i += 4 {
				seed := uint64(i)
				if *stormSeed >= 0 {
					seed = uint64(*stormSeed)
				}
				newStorm(t, seed).run()
			}
		})
	}
	wg.Wait()
	for range 1000 { // those that have ended may still be counted
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

// storm is one trial.
type storm struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand // of the main goroutine
	fs   *simFS
	s    *Spool
	o    Options

	appenders int
	records   int  // to be appended
	drops     bool // DropOldest is called, too
	crashes   bool // the machine dies
	badReads  bool // reading fails, too: records may be given up
	vanishes  bool // the directory is removed
	leave     bool // some are not settled

	wild  bool            // calls fail; guarded by fs.mu, as the next five
	burst int             // as many more calls as the last one that failed fail too
	last  string          // its operation and name
	rough bool            // a file may be longer or shorter than the spool can know
	uncut bool            // a truncation has failed: after a restart, what was settled may be there again (it is not among the promises)
	stray map[string]bool // names that could not be removed

	mu      sync.Mutex
	clock   int // counts what was settled
	fates   map[uint64]*stormFate
	pool    []uint64 // delivered, not settled
	next    uint64   // all below were delivered, or passed over
	tried   uint64   // highest number given to Append
	dropped []Dropped
	damage  []Damage
	over    bool // all was appended, and the disk is well
	drained bool // and read
	failed  bool
}

type stormFate struct {
	in, stored     bool
	delivered      bool
	toSettle, safe bool
	settled        int  // when
	either         bool // a DropOldest that did not come back
}

const stormDir = "/storm/q"

func newStorm(t *testing.T, seed uint64) *storm {
	rng := rand.New(rand.NewPCG(seed, 0))
	st := &storm{t: t, seed: seed, rng: rng, fs: newSimFS(stormDir), fates: map[uint64]*stormFate{}, stray: map[string]bool{},
		appenders: 1, records: 100 + rng.IntN(300), drops: rng.IntN(3) == 0, badReads: rng.IntN(3) == 0, leave: rng.IntN(2) == 0}
	st.o = Options{FS: st.fs, MaxBytes: 6000 + rng.Int64N(40_000), SegmentBytes: 400 + rng.Int64N(2000),
		Sync:         []SyncMode{SyncInterval, SyncEach, SyncNever}[rng.IntN(3)],
		SyncInterval: []time.Duration{300 * time.Microsecond, 3 * time.Millisecond, time.Hour}[rng.IntN(3)],
		Compression:  []Compression{None, None, S2}[rng.IntN(3)],
		readBytes:    []int{0, 100, 1000}[rng.IntN(3)],
		OnDamage:     st.onDamage,
	}
	if st.o.Sync == SyncEach {
		st.appenders = 1 + rng.IntN(3)
	}
	if rng.IntN(3) == 0 {
		st.crashes = true
		st.fs.crashAt = 50 + rng.IntN(1500)
	} else if rng.IntN(5) == 0 {
		st.vanishes = true
	}
	st.fs.mu.pause = func() {
		switch n := rand.IntN(64); {
		case n < 2:
			time.Sleep(time.Duration(rand.IntN(100)) * time.Microsecond)
		case n < 24:
			runtime.Gosched()
		}
	}
	frng := rand.New(rand.NewPCG(seed, 1))
	rate := []int{10, 30, 100}[rng.IntN(3)]
	st.fs.fail = func(_ int, op, name string) (int, error) {
		n, err := st.fault(frng, rate, op, name)
		if err != nil {
			st.rough = st.rough || op == "truncate" || op == "write" && n > 0 && strings.HasSuffix(name, suffix)
		}
		st.uncut = st.uncut || op == "truncate" && err != nil
		if op == "remove" || op == "rename" {
			st.stray[name] = err != nil && op == "remove"
		}
		return n, err
	}
	return st
}

// fault decides whether a call fails. fs.mu is held.
func (st *storm) fault(rng *rand.Rand, rate int, op, name string) (int, error) {
	errs := []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS}
	switch {
	case !st.wild:
		return 0, nil
	case op == "read" && !st.badReads, op == "truncate" && st.crashes: // the latter is not among the promises
		return 0, nil
	case op == "read":
		errs = errs[:1]
	case op == "open" && !st.badReads: // passes, and gives up no record
		errs = []syscall.Errno{syscall.EMFILE}
	case op == "open":
		errs = []syscall.Errno{syscall.EMFILE, syscall.EIO}
	}
	switch what := op + name; {
	case st.burst > 0 && what == st.last:
		st.burst--
	case rng.IntN(rate) == 0:
		st.burst, st.last = rng.IntN(4), what
	default:
		return 0, nil
	}
	n := 0
	if op == "write" {
		n = rng.IntN(200)
	}
	return n, errs[rng.IntN(len(errs))]
}

func (st *storm) errorf(format string, args ...any) {
	st.t.Errorf("-spool.storm %d: %s", st.seed, fmt.Sprintf(format, args...))
	st.mu.Lock()
	defer st.mu.Unlock()
	st.failed = true
}

// dead: the machine is, or there is no point in going on.
func (st *storm) dead() bool {
	st.mu.Lock()
	failed := st.failed
	st.mu.Unlock()
	st.fs.mu.Mutex.Lock()
	defer st.fs.mu.Mutex.Unlock()
	return failed || st.fs.crashAt > 0 && st.fs.calls >= st.fs.crashAt
}

func (st *storm) setWild(wild bool) {
	st.fs.mu.Lock()
	defer st.fs.mu.Unlock()
	st.wild, st.burst = wild, 0
	if st.fs.calls < st.fs.crashAt && !wild {
		st.fs.crashAt = 0 // it was to die later
	}
}

func (st *storm) onDamage(d Damage) {
	st.mu.Lock()
	st.damage = append(st.damage, d)
	st.mu.Unlock()
	if d.Records == 0 {
		return
	}
	switch ok := d.Cause == Unreadable || d.Cause == Unsynced && d.Err != nil; {
	case st.badReads && ok:
	case st.vanishes && d.Cause == Missing:
	default:
		st.errorf("nothing was damaged: %v", d)
	}
}

func stormRecord(seq uint64) Record {
	n := int(seq*seq) % 60
	if seq%37 == 0 {
		n = 1500
	}
	return Record{Seq: seq, Time: int64(seq), Data: fmt.Appendf(nil, "%d %0*d", seq, n, seq)}
}

func (st *storm) run() {
	var err error
	if st.s, err = Open(stormDir, st.o); err != nil {
		if !st.dead() {
			st.errorf("open: %v", err)
		}
		return
	}
	st.setWild(true)
	var appending, others sync.WaitGroup
	for i := range st.appenders {
		appending.Go(func() { st.append(st.rand(10 + i)) })
	}
	work := []func(*rand.Rand){st.read, st.settle, st.settle, st.sync, st.sync}
	if st.drops {
		work = append(work, st.drop)
	}
	for i, fn := range work {
		others.Go(func() { fn(st.rand(20 + i)) })
	}
	if st.vanishes {
		time.Sleep(time.Duration(st.rng.IntN(5)) * time.Millisecond)
		st.fs.removeAll(stormDir)
	}
	appending.Wait()
	st.setWild(false)
	st.mu.Lock()
	st.over = true
	st.mu.Unlock()
	others.Wait()
	if !st.dead() {
		st.rest()
		return
	}
	_ = st.s.Close() // it ends its goroutine
	if st.crashes && !st.t.Failed() {
		st.afterCrash()
	}
}

func (st *storm) rand(who int) *rand.Rand { return rand.New(rand.NewPCG(st.seed, uint64(who))) }

func (st *storm) wait(rng *rand.Rand) { time.Sleep(time.Duration(rng.IntN(200)) * time.Microsecond) }

func (st *storm) is(what *bool) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return *what
}

func (st *storm) append(rng *rand.Rand) {
	for left := st.records / st.appenders; left > 0 && !st.dead(); {
		st.mu.Lock()
		var recs []Record
		for seq := st.s.LastSeq(); len(recs) < 1+rng.IntN(8); {
			if seq++; seq%50 == 0 { // a gap
				seq++
			}
			recs = append(recs, stormRecord(seq))
			st.tried = max(st.tried, seq)
		}
		st.mu.Unlock()
		n, err := st.s.Append(recs)
		st.mu.Lock()
		for _, r := range recs[:n] {
			f := st.fate(r.Seq)
			f.in = true
			f.stored = f.stored || err == nil && st.o.Sync == SyncEach
		}
		st.mu.Unlock()
		left -= n
		switch {
		case errors.Is(err, ErrOrder) && st.appenders > 1: // another one was faster
		case errors.Is(err, ErrOrder), errors.Is(err, ErrTooLarge), err == nil && n < len(recs):
			st.errorf("append of %d to %d: %d, %v", recs[0].Seq, recs[len(recs)-1].Seq, n, err)
		case errors.Is(err, ErrFull) && st.drops:
			st.dropOne()
		case err != nil:
			st.wait(rng)
		}
	}
}

// fate is called with mu held.
func (st *storm) fate(seq uint64) *stormFate {
	f := st.fates[seq]
	if f == nil {
		f = &stormFate{}
		st.fates[seq] = f
	}
	return f
}

func (st *storm) read(rng *rand.Rand) {
	defer func() {
		st.mu.Lock()
		defer st.mu.Unlock()
		st.drained = true
	}()
	for !st.dead() {
		st.mu.Lock()
		over, from, next, began := st.over, st.next, st.next, st.clock
		st.mu.Unlock()
		if rng.IntN(20) == 0 { // again
			from = rng.Uint64N(next + 1)
		}
		recs, err := st.s.Read(from, rng.Int64N(500), nil)
		if len(recs) > 0 {
			st.deliver(recs, from, next, began)
			continue
		}
		if over && err == nil && from == next {
			return
		}
		st.wait(rng)
	}
}

func (st *storm) deliver(recs []Record, from, next uint64, began int) {
	var wrong []string
	st.mu.Lock()
	for _, r := range recs {
		switch f := st.fate(r.Seq); {
		case r.Seq < from:
			wrong = append(wrong, fmt.Sprintf("%d is out of order: %d was to come", r.Seq, from))
		case r.Seq > st.tried || !equal(r, stormRecord(r.Seq)):
			wrong = append(wrong, fmt.Sprintf("%d was never written: %.100q", r.Seq, r.Data))
		case f.settled > 0 && f.settled <= began:
			wrong = append(wrong, fmt.Sprintf("%d was settled", r.Seq))
		case r.Seq >= next:
			f.delivered = true
			st.pool = append(st.pool, r.Seq)
		}
		from = r.Seq + 1
		st.next = max(st.next, from)
	}
	st.mu.Unlock()
	if len(wrong) > 0 {
		st.errorf("read: %v", wrong)
	}
}

func (st *storm) settle(rng *rand.Rand) {
	for !st.dead() {
		st.mu.Lock()
		if st.drained && (st.leave || len(st.pool) == 0) {
			st.mu.Unlock()
			return
		}
		var seqs []uint64
		for range min(1+rng.IntN(10), len(st.pool)) {
			i := rng.IntN(min(len(st.pool), 20))
			seqs = append(seqs, st.pool[i])
			st.fate(st.pool[i]).toSettle = true
			st.pool = slices.Delete(st.pool, i, i+1)
		}
		st.mu.Unlock()
		if len(seqs) == 0 {
			st.wait(rng)
			continue
		}
		st.s.Settle(seqs)
		st.mu.Lock()
		st.clock++
		for _, seq := range seqs {
			st.fate(seq).settled = st.clock
		}
		st.mu.Unlock()
	}
}

func (st *storm) sync(rng *rand.Rand) {
	for !st.dead() && !st.is(&st.drained) {
		_ = st.syncOnce()
		st.wait(rng)
	}
}

func (st *storm) syncOnce() error {
	var in, settled []*stormFate
	st.mu.Lock()
	for _, f := range st.fates {
		if f.in && !f.stored {
			in = append(in, f)
		}
		if f.settled > 0 && !f.safe {
			settled = append(settled, f)
		}
	}
	st.mu.Unlock()
	err := st.s.Sync()
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, f := range in {
		f.stored = f.stored || err == nil
	}
	for _, f := range settled {
		f.safe = f.safe || err == nil
	}
	return err
}

func (st *storm) drop(rng *rand.Rand) {
	for !st.dead() && !st.is(&st.over) {
		if rng.IntN(10) == 0 {
			st.dropOne()
		}
		st.wait(rng)
	}
}

func (st *storm) dropOne() {
	d, err := st.s.DropOldest()
	st.mu.Lock()
	defer st.mu.Unlock()
	if err == nil && d.Last > 0 {
		st.dropped = append(st.dropped, d)
		return
	}
	st.s.mu.Lock() // if the machine has just died, the file may be gone
	defer st.s.mu.Unlock()
	if len(st.s.segs) > 0 {
		for seq := st.s.segs[0].first; seq <= st.s.segs[0].last(); seq++ {
			st.fate(seq).either = true
		}
	}
}

// gone: it was dropped, or reported as lost.
func (st *storm) gone(seq uint64) bool {
	return slices.ContainsFunc(st.dropped, func(d Dropped) bool { return d.First <= seq && seq <= d.Last }) ||
		slices.ContainsFunc(st.damage, func(d Damage) bool { return d.Records > 0 && d.First <= seq && seq <= d.Last })
}

// rest checks what must hold once the disk is well, and nobody appends or reads any more.
func (st *storm) rest() {
	err := st.syncOnce()
	for range 5 { // a round that began in bad times may have been joined
		if err != nil {
			err = st.syncOnce()
		}
	}
	if err != nil {
		st.errorf("sync: %v", err)
	}
	if st.vanishes { // nobody may have noticed yet
		readAll(st.t, st.s, 0)
	}
	var live []uint64
	in, given, certain := 0, 0, 0
	for seq, f := range st.fates {
		switch {
		case !f.in:
			continue
		case st.gone(seq):
		case !f.delivered:
			st.errorf("%d was passed over", seq)
		case f.toSettle:
			certain++
		default:
			live = append(live, seq)
		}
		in++
		if f.toSettle {
			given++
		}
	}
	slices.Sort(live)
	stats := st.s.Stats()
	settled := in - stats.Records // by Settle alone
	for _, d := range st.dropped {
		settled -= d.Records
	}
	for _, d := range st.damage {
		settled -= d.Records
	}
	if stats.Records != len(live) || settled < certain || settled > given {
		st.errorf("%d records left, want %d; %d settled, of %d to %d: %+v", stats.Records, len(live), settled, certain, given, stats)
	}
	if got := st.files(); !st.rough && !st.vanishes && got != stats.FileBytes {
		st.errorf("%d bytes of files, stats say %d", got, stats.FileBytes)
	}
	for restarts := range 2 {
		got := seqs(readAll(st.t, st.s, 0))
		var again []uint64
		left := slices.DeleteFunc(slices.Clone(got), func(seq uint64) bool {
			back := restarts > 0 && st.uncut && !slices.Contains(live, seq)
			if back {
				again = append(again, seq)
			}
			return back
		})
		if !slices.Equal(left, live) {
			st.errorf("left are %v, want %v; damage %v", got, live, st.damage)
		}
		st.s.Settle(again)
		st.reopen()
	}
	if last := st.s.LastSeq(); last < st.next-1 && !st.vanishes {
		st.errorf("the last sequence number was %d, is %d", st.next-1, last)
	}
	st.s.Settle(live)
	st.close()
	if st.failed {
		return
	}
	if stats := st.s.Stats(); stats.FileBytes != 0 || stats.Segments != 0 || st.files() != 0 {
		st.errorf("left over: %+v, %v", stats, st.fs.names)
	}
}

// files is the size of all segments, but for those that the spool could not remove.
func (st *storm) files() (bytes int64) {
	listed := map[string]bool{}
	st.s.mu.Lock()
	for _, sg := range st.s.segs {
		listed[sg.path] = true
	}
	st.s.mu.Unlock()
	st.fs.mu.Lock()
	defer st.fs.mu.Unlock()
	for name, n := range st.fs.names {
		if filepath.Dir(name) == stormDir && strings.Contains(name, suffix) && (listed[name] || !st.stray[name]) {
			bytes += int64(len(n.data))
		}
	}
	return bytes
}

func (st *storm) close() {
	if err := st.s.Close(); err != nil {
		st.errorf("close: %v", err)
	}
	if st.fs.open != 0 {
		st.errorf("%d files are still open", st.fs.open)
	}
}

func (st *storm) reopen() {
	st.close()
	s, err := Open(stormDir, st.o)
	if err != nil {
		st.t.Fatal(err)
	}
	st.s = s
}

// afterCrash opens what is left after the machine or the process has died, and compares.
func (st *storm) afterCrash() {
	killed := st.rng.IntN(3) == 0
	fs := st.fs.crashed(st.rng)
	if killed {
		fs = st.fs.killed()
	}
	st.o.FS = fs
	var damage []Damage
	st.o.OnDamage = func(d Damage) { damage = append(damage, d) }
	s, err := Open(stormDir, st.o)
	if err != nil {
		st.errorf("open: %v", err)
		return
	}
	defer s.Close()
	found := map[uint64]bool{}
	for _, r := range readAll(st.t, s, 0) {
		found[r.Seq] = true
		if f := st.fate(r.Seq); r.Seq > st.tried || !equal(r, stormRecord(r.Seq)) {
			st.errorf("killed %v: %d was never written: %.100q", killed, r.Seq, r.Data)
		} else if f.safe {
			st.errorf("killed %v: %d is here again", killed, r.Seq)
		}
	}
	for seq, f := range st.fates {
		if must := f.stored || killed && f.in; must && !found[seq] && !f.toSettle && !f.either && !st.gone(seq) {
			st.errorf("killed %v: %d is lost: %+v; damage %v, then %v", killed, seq, *f, st.damage, damage)
			return
		}
		if (f.stored && !f.toSettle && !st.gone(seq) && !f.either || f.safe) && seq > s.LastSeq() {
			st.errorf("killed %v: %d was stored, the last one is said to be %d", killed, seq, s.LastSeq())
		}
	}
	recs := []Record{stormRecord(s.LastSeq() + 1), stormRecord(s.LastSeq() + 2)}
	if n, err := s.Append(recs); (n != 2 || err != nil) && !errors.Is(err, ErrFull) {
		st.errorf("append: %d, %v", n, err)
	}
}
