package relay

import (
	"context"
	"errors"
	"fmt"
)

// What somebody puts into a route that runs, and takes out of it.

// ErrFull says that a route has no room for what is to be put back: nothing else is given up for it.
var ErrFull = errors.New("the route's buffer is full")

var errUnsafe = errors.New("the route has the messages, but has neither delivered nor stored them yet")

// Replay puts messages behind all that the route holds, past its filter, transformation and loop guard, which they have been through. It
// returns when each of those it has taken is fsynced in the route's buffer, or done with; a route without a disk has to deliver
// them for that. An error says why it has taken only n of them, or why they are not safe yet. The route owns those that it has taken.
func (r *Route) Replay(ctx context.Context, batch []*Stored) (n int, err error) {
	n, err = r.buffer.replay(ctx, batch)
	if err != nil {
		err = fmt.Errorf("route %s: %w", r.opts.Name, err)
	}
	return n, err
}

// Purge gives up, and counts, what the route has on disk, but for what is being delivered just now. It returns how many messages that were.
func (r *Route) Purge(ctx context.Context) (n int, err error) {
	n, err = r.buffer.purge(ctx)
	if err != nil {
		err = fmt.Errorf("route %s: %w", r.opts.Name, err)
	}
	if n > 0 {
		r.log.Warn().Int("messages", n).Msg("what was on disk has been dropped, as somebody wished")
	}
	return n, err
}

// DeadLetters returns where the route's dead letters go; nil: nowhere.
func (r *Route) DeadLetters() DeadLetters { return r.dead.store }

// replay lets the disk join in for as long as it takes: what is put back must survive from the moment on that its other copy may go.
func (b *buffer) replay(ctx context.Context, batch []*Stored) (taken int, err error) {
	defer context.AfterFunc(ctx, b.wakeAll)()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replaying++
	defer func() {
		b.replaying--
		b.work.Signal()
	}()
	for _, m := range batch {
		if err = b.putBack(ctx, &m.Message); err != nil {
			break
		}
		taken++
	}
	return taken, errors.Join(err, b.waitSafe(ctx, batch[:taken]))
}

func (b *buffer) wakeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.room.Broadcast()
}

// putBack waits for room for the message, and gives nothing up for it.
func (b *buffer) putBack(ctx context.Context, m *Message) error {
	m.Late, m.cost = true, m.Size()
	if m.cost > b.opts.Memory {
		return fmt.Errorf("message %s is larger than the whole buffer", m.ID)
	}
	for ; ; b.room.Wait() {
		switch {
		case b.noMore || b.stopping:
			return ErrStopped
		case ctx.Err() != nil:
			return ctx.Err()
		case b.diskTakes() && b.diskFull(m.cost):
			return ErrFull
		}
		if b.diskTakes() {
			b.startSpilling("messages are put back")
		}
		if b.fits(m.cost) {
			b.insert(m)
			return nil
		}
	}
}

// diskFull reports whether the disk might have to give something up for size more bytes. A sixteenth of it is left for what comes
// meanwhile, and for what the files need besides.
func (b *buffer) diskFull(size int64) bool {
	return b.disk.Stats().FileBytes+b.held+size > b.opts.Disk-b.opts.Disk/16
}

// waitSafe waits until none of the messages is in memory alone.
func (b *buffer) waitSafe(ctx context.Context, batch []*Stored) error {
	written := false
	for _, m := range batch {
		for ; !m.settled && m.record == 0; b.room.Wait() {
			if ctx.Err() != nil || b.ended {
				return errors.Join(errUnsafe, ctx.Err())
			}
		}
		written = written || !m.settled
	}
	switch {
	case !written:
		return nil
	case b.ended:
		return b.endErr // it has synced it all, or tried to
	}
	b.mu.Unlock()
	err := b.disk.Sync()
	b.mu.Lock()
	if err != nil && b.ended {
		return b.endErr // it may just have been closed, and all of it fsynced before
	}
	return err
}

// A purge is somebody's wish that the keeper fulfils.
type purge struct {
	done chan struct{}
	n    int
	err  error
}

func (b *buffer) purge(ctx context.Context) (int, error) {
	p := &purge{done: make(chan struct{})}
	b.mu.Lock()
	switch {
	case b.disk == nil:
		b.mu.Unlock()
		return 0, nil
	case b.purging != nil || b.closed:
		b.mu.Unlock()
		return 0, errors.New("it stops, or is being purged already")
	}
	b.purging = p
	b.work.Signal()
	b.mu.Unlock()
	select {
	case <-p.done:
		return p.n, p.err
	case <-b.keeperDone:
		return 0, ErrStopped
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// purgeDisk drops segment after segment until nothing is left. It is the keeper's, so nothing is written meanwhile.
func (b *buffer) purgeDisk() {
	p := b.purging
	for p.err == nil && b.disk.Stats().Records > 0 {
		n, err := b.giveUpSegment(DropPurged, nil)
		p.n, p.err = p.n+n, err
	}
	b.purging, b.losing = nil, false
	close(p.done)
	b.room.Broadcast()
}
