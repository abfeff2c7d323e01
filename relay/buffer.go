package relay

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/rs/zerolog"
)

// A buffer is the ordered buffer of one route. In the order of sequence numbers it holds
//
//	batches that lanes have taken │ queues of what is ready │ gap: only on disk │ tail: not yet written
//
// While the sink keeps up there are only batches and queues, and the disk is not touched. When the disk has to join in
// (spilling), the tail is all that is not yet written, oldest first: what the queues hold, then what comes. The keeper
// writes it. What is written is queued while memory has room for it, and else forgotten: that opens the gap. The keeper reads the
// gap back as the queues empty. So the disk is always in sequence, and everything new lines up behind it.
//
// Taking does not remove: a message is held, in memory and on disk, until it is settled.
//
// All methods are safe for concurrent use.
type buffer struct {
	opts  BufferOptions
	disk  *spool.Spool // nil: no disk, and no backlog of an earlier run either
	count *counters
	drops *drops
	log   zerolog.Logger
	seed  maphash.Seed

	keeper   pulse
	syncer   pulse      // of syncStored
	settling sync.Mutex // one settleOnDisk at a time; taken before mu
	spare    []uint64   // guarded by settling

	mu     sync.Mutex // guards all below, the lanes' batches, and the flags of messages
	room   sync.Cond  // memory was freed, or a state changed that somebody waits for
	work   sync.Cond  // the keeper has something to do
	queues []*queue
	lanes  []*lane

	latency  latency // of what was delivered
	lastSeq  uint64
	held     int64 // bytes of all messages in memory
	ready    int64 // bytes of those in queues and batches
	messages int   // number of all messages in memory

	spilling bool
	tail     []*Message
	writing  bool // what was the first of the tail
	gap      bool
	readFrom uint64   // record at which the gap starts
	settled  []uint64 // records removed, and still to be settled on disk: see settleOnDisk

	// owed are receipts of records that may not be in memory: of what upstream keeps, and was written and forgotten, until it is read back; and
	// with SettleStored, of what was written and is not known to be fsynced. The source bounds their number: it takes no more than it may hold.
	owed        map[uint64]Receipt
	lost        *lostRecords
	unsynced    sync.Cond // owed has something to be fsynced for, or closed
	syncRest    bool      // no fsync for a while
	upstreamHas bool      // messages come with receipts, and are to be settled only when they are done
	stopping    bool      // the route has begun to stop
	syncerDone  chan struct{}

	outage     bool // the sink has been failing for SpillAfter
	outageIn   *time.Timer
	sinkDown   bool
	waiting    int       // puts that are held back by the policy to block
	fullAt     time.Time // when a message was last given up for want of room
	losing     bool      // the disk has given up its oldest segment since the sink began to fail: it is full, and the next will follow
	spillSaid  bool      // the log has that the disk joins in, and not yet that it is caught up with
	backlog    bool      // the same of what was on disk at the start
	diskDown   error     // why the spool failed, until it works again or is not wanted any more
	diskLogged time.Time // when that was last logged
	writeRest  bool      // the keeper does not write for a while, after an error
	readRest   bool      // the same for reading
	pressed    bool      // a put asks the keeper to replaceOldest
	stuck      bool      // that did not help
	draining   bool      // nobody waits for fuller batches any more
	hurry      bool      // put waits for no delivery: none comes
	noMore     bool      // put refuses: the sources have had their time
	noTake     bool      // take returns nothing: the lanes end
	replaying  int       // messages are being put back: the disk has to join in
	purging    *purge    // somebody wants the disk emptied; nil: nobody
	closed     bool      // the keeper ends
	ended      bool      // all is on disk that will ever be
	endErr     error     // why that may not be all
	keeperDone chan struct{}
}

var (
	// ErrStopped is what accept returns when the route takes no more messages.
	ErrStopped = errors.New("the route has stopped")

	errNoRoom = errors.New("buffer full")
)

// newBuffer makes a buffer for the given number of lanes. It takes disk over, and closes it in close.
// The caller starts it before the first put.
func newBuffer(o BufferOptions, disk *spool.Spool, lanes int, ordering Ordering, count *counters, drops *drops, log zerolog.Logger) *buffer {
	b := &buffer{
		opts: o, disk: disk, count: count, drops: drops, log: log, seed: maphash.MakeSeed(), latency: newLatency(),
		owed: map[uint64]Receipt{}, lost: &lostRecords{}, keeperDone: make(chan struct{}), syncerDone: make(chan struct{}),
	}
	b.room.L, b.work.L, b.unsynced.L = &b.mu, &b.mu, &b.mu
	for i := range lanes {
		if i == 0 || ordering == OrderSubject {
			q := &queue{}
			q.available.L, q.full.L = &b.mu, &b.mu
			b.queues = append(b.queues, q)
		}
		b.lanes = append(b.lanes, &lane{queue: b.queues[len(b.queues)-1]})
	}
	if disk != nil {
		b.gap = disk.Stats().Records > 0
		b.spilling = b.gap || b.mustSpill()
		b.backlog = b.gap && o.Persist != PersistAlways
	}
	return b
}

// start runs the buffer's goroutines, until close.
func (b *buffer) start() {
	go b.keep()
	go b.syncStored()
}

// put gives the message its sequence number and holds it until it is settled. It waits for room if that is the policy.
// It returns ErrStopped when the buffer takes no more, and errNoRoom when the message itself was given up, and counted.
func (b *buffer) put(m *Message) error {
	m.cost = m.Size()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.admit(m); err != nil {
		return err
	}
	b.insert(m)
	return nil
}

// insert holds a message that has been admitted, behind all others.
func (b *buffer) insert(m *Message) {
	b.lastSeq++
	m.seq = b.lastSeq
	b.hold(m)
	if b.spilling {
		b.tail = append(b.tail, m)
		b.work.Signal()
	} else {
		b.enqueue(m)
	}
}

// hold and release count what is in memory.
func (b *buffer) hold(m *Message)    { b.held, b.messages = b.held+m.cost, b.messages+1 }
func (b *buffer) release(m *Message) { b.held, b.messages = b.held-m.cost, b.messages-1 }

// enqueue makes the message ready to be taken.
func (b *buffer) enqueue(m *Message) {
	q := b.queues[0]
	if len(b.queues) > 1 {
		q = b.queues[maphash.String(b.seed, m.Subject)%uint64(len(b.queues))]
	}
	m.queued = true
	b.ready += m.cost
	q.push(m)
	q.enqueued(m)
}

// take waits for messages and makes them the lane's batch, oldest first, as many as there are within the limits.
// They stay in the buffer until settle. It returns nil when there is nothing more to take, because the route stops.
func (b *buffer) take(l *lane, limits Limits) []*Message {
	b.mu.Lock()
	defer b.unlock()
	for len(l.batch) == 0 {
		for (l.queue.len() == 0 || l.queue.filling) && !b.noTake {
			l.queue.available.Wait()
		}
		if b.noTake {
			return nil
		}
		if full := b.fill(l, limits, false); !full && len(l.batch) > 0 && limits.Wait > 0 {
			b.fillUp(l, limits)
		}
		if limits.Wait > 0 && l.queue.len() > 0 {
			l.queue.available.Signal() // the lane that was filling has taken the signals of others
		}
	}
	return l.batch
}

// fill moves what is ready into the lane's batch, and reports whether the batch is full. If the batch is offered already, it ends before a
// message that is condemned.
func (b *buffer) fill(l *lane, limits Limits, offered bool) (full bool) {
	for q := l.queue; q.len() > 0 && len(l.batch) < limits.Messages; {
		m := q.at(0)
		if b.expired(m.Time) && !b.opts.KeepExpired {
			b.discard(q.pop(), DropMaxAge)
			b.freed()
			b.work.Signal() // the keeper settles it on disk: this lane may have to wait
			continue
		}
		if l.bytes+m.cost > limits.Bytes && len(l.batch) > 0 || offered && b.condemned(m) {
			return true
		}
		l.batch = append(l.batch, q.pop())
		l.bytes += m.cost
	}
	return len(l.batch) == limits.Messages || l.bytes >= limits.Bytes
}

// more adds what is ready to the lane's batch, which the sink has been offered already, and returns what it has added.
func (b *buffer) more(l *lane, limits Limits) []*Message {
	b.mu.Lock()
	defer b.unlock()
	had := len(l.batch)
	if !b.noTake {
		b.fill(l, limits, true)
	}
	return l.batch[had:]
}

// condemned reports whether the message is to become a dead letter, and not to be offered to the sink.
func (b *buffer) condemned(m *Message) bool {
	return m.verdict != nil || b.opts.KeepExpired && b.expired(m.Time)
}

func (b *buffer) expired(t time.Time) bool {
	return b.opts.MaxAge > 0 && time.Since(t) > b.opts.MaxAge
}

// expire drops what has become too old from the lane's batch and returns the rest.
func (b *buffer) expire(l *lane) []*Message {
	if b.opts.MaxAge == 0 || b.opts.KeepExpired {
		return l.batch
	}
	b.mu.Lock()
	defer b.unlock()
	return b.keepOnly(l, len(l.batch), func(_ int, m *Message) bool {
		if b.expired(m.Time) {
			b.discard(m, DropMaxAge)
			return false
		}
		return true
	})
}

// settle removes from the lane's batch, and so from the buffer, what the outcomes say is done: they are of its first messages, or of all. It returns
// what is left. The outcomes of those of them that have one are then the first of out.
func (b *buffer) settle(l *lane, out []Outcome) []*Message {
	var delivered, bytes uint64
	left := 0
	now := time.Now()
	defer func() {
		b.count.delivered.Add(delivered)
		b.count.deliveredBytes.Add(bytes)
	}()
	b.mu.Lock()
	defer b.unlock()
	return b.keepOnly(l, len(out), func(i int, m *Message) bool {
		switch out[i].Status {
		case Delivered:
			delivered++
			bytes += uint64(len(m.Data))
			b.latency.observe(now.Sub(m.received()))
			b.remove(m)
		case buried:
			b.remove(m)
		default:
			out[left] = out[i]
			left++
			return true
		}
		return false
	})
}

// keepOnly filters the first n messages of the lane's batch in place, in order, and keeps the others.
func (b *buffer) keepOnly(l *lane, n int, keep func(int, *Message) bool) []*Message {
	kept := l.batch[:0]
	for i, m := range l.batch[:n] {
		if keep(i, m) {
			kept = append(kept, m)
		} else {
			l.bytes -= m.cost
		}
	}
	kept = append(kept, l.batch[n:]...)
	clear(l.batch[len(kept):])
	l.batch = kept
	b.freed()
	return kept
}

// freed wakes those who wait for memory: puts, and the keeper, which reads on.
func (b *buffer) freed() {
	b.room.Broadcast()
	if b.gap || b.spilling {
		b.work.Signal()
	}
}

// discard gives a message up that is in no queue and no batch any more.
func (b *buffer) discard(m *Message, reason string) {
	b.drops.add(reason, 1, nil)
	b.remove(m)
}

// remove forgets a message that is done and has left its queue or batch; on disk it is marked as done.
func (b *buffer) remove(m *Message) {
	b.release(m)
	if m.queued {
		b.ready -= m.cost
	}
	m.settled = true // the keeper, should it be writing this message now, settles it on disk afterwards
	if m.record != 0 {
		b.settled = append(b.settled, m.record)
	}
	m.settle(FateDone)
}

// unlock releases mu, and settles on disk what was removed under it.
func (b *buffer) unlock() {
	pending := len(b.settled) > 0
	b.mu.Unlock()
	if pending {
		b.settleOnDisk()
	}
}

// settleOnDisk tells the spool what has been removed. It returns when all that was removed before the call is in the spool's cursor,
// so that no more is delivered twice after kill -9 than what was in flight. mu is not held: the spool may have to wait for its disk.
// Lanes that come meanwhile find their work done by the next of them.
func (b *buffer) settleOnDisk() {
	b.settling.Lock()
	defer b.settling.Unlock()
	b.mu.Lock()
	records := b.settled
	b.settled, b.spare = b.spare[:0], records
	catchingUp := b.spillSaid || b.backlog
	b.mu.Unlock()
	if len(records) == 0 {
		return
	}
	b.disk.Settle(records)
	if catchingUp {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.work.Signal() // the keeper says when nothing is left there
	}
}

// setSink tells the buffer whether the sink works: when it has not for SpillAfter, messages go to disk.
func (b *buffer) setSink(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sinkDown = down
	switch {
	case down && b.outageIn == nil:
		b.outageIn = time.AfterFunc(b.opts.SpillAfter, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.outage = b.sinkDown
			b.work.Signal()
		})
	case !down:
		if b.outageIn != nil {
			b.outageIn.Stop()
		}
		b.outageIn, b.outage, b.losing = nil, false, false
		b.work.Signal()
	}
	b.room.Broadcast()
}

// waitDrained waits until nothing is left to deliver, or waiting no longer helps: the sink is down, or far behind,
// and what is left is safe on disk or upstream. It returns early when ctx ends.
func (b *buffer) waitDrained(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.room.Broadcast()
	})()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draining = true
	for _, q := range b.queues {
		q.full.Signal()
	}
	for ctx.Err() == nil && (b.held > 0 || b.gap) && !((b.diskTakes() || b.upstreamHas) && (b.sinkDown || b.gap)) {
		b.room.Wait()
	}
}

// beginStop makes put refuse what upstream keeps: it would only have to be given back.
func (b *buffer) beginStop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopping = true
	b.room.Broadcast()
}

// hurryPuts makes every put that would have to wait for a delivery return ErrStopped, those that wait already, too.
func (b *buffer) hurryPuts() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hurry = true
	b.room.Broadcast()
}

// stopPuts makes every put, waiting or to come, return ErrStopped.
func (b *buffer) stopPuts() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noMore = true
	b.room.Broadcast()
}

// stopTakes makes every take, waiting or to come, return nil.
func (b *buffer) stopTakes() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noTake = true
	for _, q := range b.queues {
		q.full.Signal()
		q.available.Broadcast()
	}
}
