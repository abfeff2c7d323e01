package relay

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
)

// What the buffer owes upstream: which messages are to be held back there, and when each is settled.

// keptUpstream reports whether upstream keeps the message until it is done. Then there is no use in writing it to disk when the sink
// fails or memory is full: it is held back where it is.
func (b *buffer) keptUpstream(m *Message) bool { return m.Receipt != nil && !b.opts.SettleStored }

// holdsBack reports whether what upstream keeps should stay there for now. With nothing in memory there would be nothing to try the sink with.
func (b *buffer) holdsBack() bool { return b.sinkDown && b.held > 0 }

// settleSynced sees to it that a message that has just been written is settled upstream once it is fsynced, if it is not done before.
func (b *buffer) settleSynced(m *Message, synced bool) {
	switch {
	case m.Receipt == nil:
	case synced:
		m.settle(FateStored)
	default:
		m.Receipt = &onceReceipt{m.Receipt}
		b.owed[m.record] = m.Receipt
		b.unsynced.Signal()
	}
}

// A onceReceipt is settled by whatever comes first: that its message is done, or that it is stored. Guarded by buffer.mu.
type onceReceipt struct{ inner Receipt }

func (r *onceReceipt) Settle(f Fate) {
	if r.inner != nil {
		r.inner.Settle(f)
		r.inner = nil
	}
}

// syncStored fsyncs what receipts wait for, at most once every SyncInterval, until close: a goroutine of its own with SettleStored, since
// neither writing nor reading should wait for that. The spool's own fsync has then nothing left to do.
func (b *buffer) syncStored() {
	defer close(b.syncerDone)
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.opts.SettleStored && !b.closed {
		if len(b.owed) == 0 || b.syncRest {
			b.unsynced.Wait()
			continue
		}
		upto := b.disk.LastSeq()
		b.mu.Unlock()
		b.syncer.at(syncing)
		err := b.disk.Sync()
		b.syncer.at(resting)
		b.mu.Lock()
		pause := b.opts.SyncInterval
		if err != nil {
			pause = max(pause, diskRest) // the spool makes up for it
		} else {
			b.settleSync(true, upto)
		}
		b.restSync(pause)
	}
}

func (b *buffer) restSync(pause time.Duration) {
	b.syncRest = true
	time.AfterFunc(pause, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.syncRest = false
		b.unsynced.Signal()
	})
}

// settleSync settles what is owed for records up to the given one: as stored if they are fsynced, but for those that the disk has lost.
func (b *buffer) settleSync(synced bool, upto uint64) {
	b.settleOwed(FateReturned, b.lost.take())
	fate := FateStored
	if !synced {
		fate = FateReturned
	}
	b.settleOwed(fate, func(record uint64) bool { return record <= upto })
}

// settleOwed settles what is owed for the given records, in order.
func (b *buffer) settleOwed(f Fate, of func(record uint64) bool) {
	var records []uint64
	for record := range b.owed {
		if of(record) {
			records = append(records, record)
		}
	}
	slices.Sort(records)
	for _, record := range records {
		b.owed[record].Settle(f)
		delete(b.owed, record)
	}
}

// giveBack returns to upstream, in order, what it keeps, and forgets it: whoever gets it next begins anew. With SettleStored it
// returns only what has not been on disk.
func (b *buffer) giveBack() {
	type debt struct {
		place, seq uint64
		receipt    Receipt
	}
	var debts []debt
	for m := range b.inMemory {
		if m.Receipt == nil || m.settled || b.opts.SettleStored && (m.record != 0 || m.evicted) {
			continue
		}
		place := m.record
		if place == 0 && !m.evicted { // what was on disk lies before all that is, what was not behind it
			place = math.MaxUint64
		}
		debts = append(debts, debt{place, m.seq, m.Receipt})
		m.Receipt = nil
		b.remove(m)
	}
	if !b.opts.SettleStored {
		for record, receipt := range b.owed {
			debts = append(debts, debt{place: record, receipt: receipt})
			b.settled = append(b.settled, record)
		}
		clear(b.owed)
	}
	slices.SortFunc(debts, func(x, y debt) int { return cmp.Or(cmp.Compare(x.place, y.place), cmp.Compare(x.seq, y.seq)) })
	for _, d := range debts {
		d.receipt.Settle(FateReturned)
	}
}

// lostRecords are what the spool has lost on the disk. The spool tells of it from any goroutine, with the buffer's lock held, too.
type lostRecords struct {
	mu     sync.Mutex
	ranges []spool.Damage
}

func (l *lostRecords) add(d spool.Damage) {
	if d.Records == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ranges = append(l.ranges, d)
}

// take returns a test for what was lost since the last time.
func (l *lostRecords) take() func(record uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ranges := l.ranges
	l.ranges = nil
	return func(record uint64) bool {
		return slices.ContainsFunc(ranges, func(d spool.Damage) bool { return d.First <= record && record <= d.Last })
	}
}
