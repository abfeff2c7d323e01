package relay

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
)

// The keeper is the buffer's one goroutine that writes to the disk and reads from it. It takes turns, so that neither a flood of new
// messages starves the reading nor the other way round, and it does its I/O without the buffer's lock.

const (
	keeperMessages = 1024        // most messages in one write
	keeperBytes    = 1 << 20     // most bytes in one write or read, but for a single larger message
	diskRest       = time.Second // pause after the disk has failed
)

// keep runs until close.
func (b *buffer) keep() {
	defer close(b.keeperDone)
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed {
		if len(b.settled) > 0 {
			b.keeper.at(settling)
			b.unlock()
			b.keeper.at(resting)
			b.mu.Lock()
		}
		if b.pressed {
			b.replaceOldest()
		}
		if b.purging != nil {
			b.purgeDisk()
		}
		if b.mustSpill() {
			b.startSpilling("nothing can be delivered")
		}
		wrote := b.writeSome()
		read := b.readSome()
		b.stopSpilling()
		if !wrote && !read && !b.closed {
			b.work.Wait()
		}
	}
}

// mustSpill reports whether the disk has to join in although memory has room.
func (b *buffer) mustSpill() bool {
	return !b.spilling && b.diskTakes() &&
		(b.opts.Persist == PersistAlways || b.replaying > 0 || b.opts.Persist == PersistOutage && b.outage && !b.upstreamHas)
}

// startSpilling makes what is in memory and not on disk the tail. The messages stay in their queues and batches.
func (b *buffer) startSpilling(why string) {
	if b.spilling {
		return
	}
	b.tail, b.spilling = b.unwritten(), true
	b.work.Signal()
	if b.opts.Persist != PersistAlways && !b.spillSaid { // a disk that fails is tried again every second
		b.spillSaid = true
		b.log.Info().Int("messages", b.messages).Int64("bytes", b.held).Msg("spilling to disk: " + why)
	}
}

// unwritten returns all that is in memory and not on disk, in order.
func (b *buffer) unwritten() []*Message {
	var all []*Message
	for m := range b.inMemory {
		if m.record == 0 && !m.settled && !m.evicted {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(x, y *Message) int { return cmp.Compare(x.seq, y.seq) })
	return all
}

// inMemory yields every message in memory, in no order.
func (b *buffer) inMemory(yield func(*Message) bool) {
	for _, l := range b.lanes {
		for _, m := range l.batch {
			if !yield(m) {
				return
			}
		}
	}
	for _, q := range b.queues {
		for i := range q.len() {
			if !yield(q.at(i)) {
				return
			}
		}
	}
	for _, m := range b.tail {
		if !m.queued && !yield(m) {
			return
		}
	}
}

// stopSpilling lets new messages go by memory alone, once the gap is closed and nothing asks for the disk.
func (b *buffer) stopSpilling() {
	wanted := b.opts.Disk > 0 && (b.opts.Persist == PersistAlways || b.replaying > 0 || (b.outage || b.held > b.opts.Memory/4) && !b.upstreamHas)
	if b.gap || wanted {
		return
	}
	b.diskDown = nil // whether it works will be seen the next time, and said
	if b.spilling {
		b.queueTail()
	}
	// What has only been read back is not caught up with: the sink may well be down.
	if (b.spillSaid || b.backlog) && b.disk.Stats().Records == 0 {
		b.spillSaid, b.backlog = false, false
		b.log.Info().Msg("caught up with the disk: nothing is left there, and what comes goes by memory alone")
	}
}

// queueTail ends the spilling: what was waiting to be written is made ready instead. There must be no gap.
func (b *buffer) queueTail() {
	for _, m := range b.tail {
		if !m.queued && !m.settled {
			b.enqueue(m)
		}
	}
	b.tail, b.spilling = nil, false
	b.room.Broadcast()
}

// writeSome writes the first of the tail to disk, and reports whether there was something to write.
func (b *buffer) writeSome() bool {
	if !b.diskTakes() {
		return false
	}
	batch := b.nextWrite()
	if len(batch) == 0 {
		return false
	}
	b.writing = true
	b.mu.Unlock()
	b.keeper.at(writing)
	first, n, err := b.append(batch)
	b.keeper.at(resting)
	b.mu.Lock()
	b.writing = false
	horizon := b.horizon()
	for i, m := range batch[:n] {
		m.record = first + uint64(i)
		b.written(m, err == nil && b.opts.Sync == spool.SyncEach, horizon)
	}
	if n < len(batch) {
		b.tail = slices.Concat(batch[n:], b.tail)
	}
	b.wrote(err)
	b.room.Broadcast()
	return true
}

// nextWrite takes the first messages off the tail, as many as one write carries; what has been settled meanwhile is left out.
func (b *buffer) nextWrite() []*Message {
	var batch []*Message
	var bytes int64
	for len(b.tail) > 0 && len(batch) < keeperMessages && bytes < keeperBytes {
		if m := b.popTail(); !m.settled {
			batch = append(batch, m)
			bytes += int64(len(m.Data))
		}
	}
	return batch
}

// popTail takes the first message off the tail.
func (b *buffer) popTail() *Message {
	m := b.tail[0]
	b.tail[0] = nil // what is given up must not be held by the array
	b.tail = b.tail[1:]
	return m
}

// append writes messages to the spool and returns the first one's record, and how many of them are in it.
// Records are numbered without holes, in the order of the messages.
func (b *buffer) append(batch []*Message) (first uint64, n int, err error) {
	first = b.disk.LastSeq() + 1
	var bytes []byte
	records := make([]spool.Record, len(batch))
	for i, m := range batch {
		start := len(bytes)
		bytes = appendRecord(bytes, m)
		records[i] = spool.Record{Seq: first + uint64(i), Time: m.Time.UnixNano(), Data: bytes[start:len(bytes):len(bytes)]}
	}
	n, err = b.disk.Append(records)
	return first, n, err
}

// written notes that the message is on disk, fsynced even, and makes it ready or forgets it.
func (b *buffer) written(m *Message, synced bool, horizon uint64) {
	b.count.spilled.Add(1)
	if b.opts.SettleStored {
		b.settleSynced(m, synced)
	}
	switch {
	case m.settled:
		b.settled = append(b.settled, m.record)
	case m.queued:
	case !b.gap && b.ready+m.cost <= b.opts.Memory/4*3 && m.record < horizon:
		b.enqueue(m)
	default:
		if !b.gap {
			b.gap, b.readFrom = true, m.record
		}
		b.release(m)
		if b.keptUpstream(m) {
			b.owed[m.record] = m.Receipt
		}
	}
}

// wrote takes note of how a write ended.
func (b *buffer) wrote(err error) {
	switch {
	case err == nil:
		b.diskWorks()
		return
	case errors.Is(err, spool.ErrTooLarge):
		b.giveUpTail(err)
		return
	case errors.Is(err, spool.ErrFull) && b.opts.WhenFull == DropOldest && b.dropSegment(errDiskFull):
		return
	case !errors.Is(err, spool.ErrFull): // being full is a state, and no failure
		b.diskFails(err)
	}
	b.rest(&b.writeRest)
	if !b.gap {
		b.queueTail()
	}
}

// diskFails and diskWorks log that the disk changes its mind, unless it does so all the time.
func (b *buffer) diskFails(err error) {
	if b.diskDown == nil && time.Since(b.diskLogged) > repeatLog {
		b.diskLogged = time.Now()
		b.log.Error().Err(err).Msg("cannot write to disk, going on from memory and trying again every second")
	}
	b.diskDown = err
}

func (b *buffer) diskWorks() {
	if b.diskDown != nil {
		b.diskDown = nil
		b.log.Info().Msg("disk works again")
	}
}

// giveUpTail drops the first message of the tail, which the spool will never take.
func (b *buffer) giveUpTail(err error) {
	m := b.popTail()
	if m.queued || m.settled {
		return // it can still be delivered from memory
	}
	b.drops.add(DropTooLarge, 1, err)
	b.remove(m)
}

// errDiskFull is why the oldest messages are given up.
var errDiskFull = errors.New("buffer.disk is reached, the oldest messages give way")

// dropSegment gives up the oldest segment on disk to make room for new messages, and reports whether that worked.
func (b *buffer) dropSegment(why error) bool {
	_, err := b.giveUpSegment(DropBufferFull, why)
	if err == nil {
		b.fullAt, b.losing = time.Now(), b.sinkDown
	}
	return err == nil
}

// giveUpSegment gives up the oldest segment on disk for the reason, and returns how many messages that were. What lanes are delivering of
// it now is not lost yet, and not counted.
func (b *buffer) giveUpSegment(reason string, why error) (n int, err error) {
	b.mu.Unlock()
	b.settling.Lock() // nothing may be on its way to being settled, or it would be counted as dropped
	defer b.settling.Unlock()
	b.mu.Lock()
	b.disk.Settle(b.settled)
	b.settled = b.settled[:0]
	dropped, err := b.disk.DropOldest()
	if err == nil && dropped.Last == 0 {
		err = errNoSegment
	}
	if err != nil {
		return 0, err
	}
	n = dropped.Records
	for _, l := range b.lanes {
		for _, m := range l.batch {
			if m.record >= dropped.First && m.record <= dropped.Last {
				delete(b.owed, m.record) // upstream is told when it is done
				m.record, m.evicted = 0, true
				n--
			}
		}
	}
	for _, q := range b.queues {
		for q.len() > 0 && q.at(0).record != 0 && q.at(0).record <= dropped.Last {
			m := q.pop()
			m.record = 0 // it is gone there
			b.remove(m)
		}
	}
	b.settleOwed(FateDone, func(record uint64) bool { return record >= dropped.First && record <= dropped.Last })
	b.drops.add(reason, n, why)
	return n, nil
}

// errNoSegment: what fills the disk are files that are done with and cannot be unlinked.
var errNoSegment = errors.New("there is nothing on disk to give up")

// evicted settles what the disk has given up and was never delivered after all, and returns how many messages that are.
func (b *buffer) evicted() int {
	n := 0
	for _, l := range b.lanes {
		for _, m := range l.batch {
			if m.evicted && !m.settled {
				m.settle(FateDone)
				n++
			}
		}
	}
	return n
}

// replaceOldest gives up the oldest segment, of which the spool may then write as much anew, however full the file
// system is. It is the last resort, when memory is full as well.
func (b *buffer) replaceOldest() {
	b.pressed = false
	b.stuck = !b.dropSegment(b.diskDown)
	if b.writeRest = false; b.stuck {
		b.rest(&b.writeRest) // anew: the rest that it was pressed in may be over
	}
	b.room.Broadcast()
}

// rest makes the keeper leave the disk alone for a while, for reading or for writing.
func (b *buffer) rest(what *bool) {
	*what = true
	time.AfterFunc(diskRest, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		*what, b.stuck = false, false
		b.work.Signal()
		b.room.Broadcast()
	})
}

// readSome reads the next of the gap back into the queues, and reports whether it did.
func (b *buffer) readSome() bool {
	half := b.opts.Memory / 2
	if !b.gap || b.readRest || b.ready > half/2 || b.ready > 0 && b.readFrom >= b.horizon() {
		return false
	}
	from, most := b.readFrom, min(keeperBytes, half/4)
	b.mu.Unlock()
	b.keeper.at(reading)
	records, err := b.disk.Read(from, most, nil)
	b.keeper.at(resting)
	b.mu.Lock()
	if err != nil {
		b.log.Error().Err(err).Msg("cannot read the backlog from disk, trying again in a second")
		b.rest(&b.readRest)
		return true
	}
	for _, rec := range records {
		b.readBack(rec)
		b.readFrom = rec.Seq + 1
	}
	if len(records) == 0 {
		b.gap, b.readFrom = false, math.MaxUint64
		b.room.Broadcast()
	}
	if !b.opts.SettleStored { // what the disk has lost, upstream still has
		b.settleOwed(FateReturned, func(record uint64) bool { return record < b.readFrom })
	}
	return true
}

// horizon returns the first record that must not be made ready yet: the spool could not remember over a restart that it was settled,
// because the oldest unsettled one is too far behind. One lane is stuck then, while others go on.
func (b *buffer) horizon() uint64 {
	if first := b.disk.Stats().First; first != 0 {
		return first + spool.MaxSpan
	}
	return math.MaxUint64
}

// readBack makes a record from disk ready.
func (b *buffer) readBack(rec spool.Record) {
	m := &Message{record: rec.Seq}
	if err := decodeRecord(m, rec); err != nil {
		b.count.corrupt.Add(1)
		b.log.Error().Err(err).Uint64("seq", rec.Seq).Msg("record on disk cannot be delivered, left behind")
		b.settled = append(b.settled, rec.Seq)
		return
	}
	m.Receipt = b.owed[rec.Seq]
	if !b.opts.SettleStored { // or else it is still to be fsynced, or done with, whatever comes first
		delete(b.owed, rec.Seq)
	}
	m.cost = m.Size()
	b.hold(m)
	b.enqueue(m)
}

// close ends the keeper, gives back what upstream keeps, writes what else is in memory to disk, and closes the spool. No put and no take
// may be under way.
func (b *buffer) close() error {
	b.mu.Lock()
	b.closed = true
	b.work.Signal()
	b.unsynced.Signal()
	b.mu.Unlock()
	<-b.keeperDone
	<-b.syncerDone

	b.mu.Lock()
	if b.outageIn != nil {
		b.outageIn.Stop()
	}
	err := b.store()
	b.ended, b.endErr = true, err
	b.room.Broadcast()
	b.mu.Unlock()
	if b.disk != nil {
		err = errors.Join(err, b.disk.Close())
	}
	return err
}

// store is the last write. The keeper has ended.
func (b *buffer) store() error {
	if b.disk == nil || !b.opts.SettleStored {
		b.giveBack()
	}
	if b.disk == nil {
		b.drops.add(DropShutdown, b.messages, errors.New("buffer.disk is 0"))
		return nil
	}
	b.writeRest, b.diskDown = false, nil
	if b.messages > 0 {
		b.startSpilling("the route stops")
	}
	for b.writeSome() {
	}
	settled := b.settled
	b.mu.Unlock() // whoever asks how the route stands does not wait for the disk
	b.disk.Settle(settled)
	err := b.disk.Sync()
	b.mu.Lock()
	b.settleSync(err == nil, math.MaxUint64)
	b.giveBack() // with SettleStored, what the disk has not taken
	b.drops.add(DropBufferFull, b.evicted(), nil)
	b.drops.add(DropShutdown, len(b.unwritten()), b.diskDown)
	return err
}
