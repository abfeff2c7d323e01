package relay

import (
	"errors"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
)

// What the buffer does when a message finds no room: let the disk join in, wait, or give something up.

// admit waits for, or makes, room for the message.
func (b *buffer) admit(m *Message) error {
	size, kept := m.cost, b.keptUpstream(m)
	b.upstreamHas = b.upstreamHas || kept
	if size > b.opts.Memory {
		b.drops.add(DropTooLarge, 1, nil)
		return errNoRoom
	}
	refused := func() bool { return b.noMore || b.stopping && kept }
	for !refused() && (!b.fits(size) || kept && b.holdsBack()) {
		switch {
		case kept && b.holdsBack():
			b.room.Wait()
		case b.diskTakes() && (b.spilling || !kept):
			if b.startSpilling("memory is full"); !b.fits(size) {
				b.room.Wait() // for the keeper, it does not take long
			}
		case b.opts.WhenFull == Block && b.hurry:
			return ErrStopped
		case b.opts.WhenFull == Block:
			b.waiting++
			b.room.Wait()
			b.waiting--
		case b.opts.WhenFull == DropOldest && b.canReplace():
			b.pressed = true
			b.work.Signal()
			b.room.Wait()
		case b.opts.WhenFull == DropNewest || !b.dropOldest():
			b.fullAt = time.Now()
			b.drops.add(DropBufferFull, 1, nil)
			return errNoRoom
		default:
			b.fullAt = time.Now()
		}
	}
	if refused() {
		return ErrStopped
	}
	return nil
}

// fits reports whether size more bytes keep the buffer within its memory, or exceed it only until the keeper has written them.
func (b *buffer) fits(size int64) bool {
	limit := b.opts.Memory
	switch {
	case b.held == 0, b.spilling && b.diskTakes() && len(b.tail) == 0 && !b.writing:
		return true // nothing waits to be written: the queues, which may be full for as long as the sink is down, keep no message from the disk
	case !b.spilling && b.opts.Disk > 0:
		limit -= limit / 4 // kept free for the tail, or nothing could come while the keeper starts to write
	case b.gap && b.held > b.ready:
		limit = min(limit, b.ready+limit/2) // the tail leaves room for reading back
	}
	return b.held+size <= limit
}

// diskTakes reports whether the keeper can write what comes.
func (b *buffer) diskTakes() bool {
	return b.disk != nil && b.opts.Disk > 0 && !b.writeRest
}

// dropOldest gives up the oldest message that nobody is delivering or writing, and reports whether there was one.
func (b *buffer) dropOldest() bool {
	if b.gap {
		// The oldest are on a disk that does not work now. Of what is in memory, the tail is what stands in the way.
		if len(b.tail) == 0 {
			return false
		}
		b.discard(b.popTail(), DropBufferFull)
		return true
	}
	var oldest *queue
	for _, q := range b.queues {
		if q.len() > 0 && (oldest == nil || q.at(0).Time.Before(oldest.at(0).Time)) {
			oldest = q
		}
	}
	if oldest == nil {
		return false
	}
	b.discard(oldest.pop(), DropBufferFull) // the next settleOnDisk takes it along
	return true
}

// canReplace reports whether replaceOldest may help: the file system is full, though perhaps not of what is ours.
func (b *buffer) canReplace() bool {
	return b.gap && !b.stuck && errors.Is(b.diskDown, spool.ErrLowSpace)
}
