package relay

import (
	"sync"
	"time"
)

// A queue holds messages that are ready to be taken, in order. Each lane has its own, or all share one if order does not matter.
type queue struct {
	fifo
	available sync.Cond // for lanes without a batch

	filling      bool      // a lane waits for its batch to become full: what comes is for that one
	lackMessages int       // that make it full
	lackBytes    int64     // the same
	full         sync.Cond // for the lane that is filling
}

// enqueued lets a lane know of one more message, if it is worth waking one up.
func (q *queue) enqueued(m *Message) {
	if !q.filling {
		q.available.Signal()
		return
	}
	q.lackMessages--
	q.lackBytes -= m.cost
	if q.lackMessages <= 0 || q.lackBytes <= 0 {
		q.full.Signal()
	}
}

// fillUp waits for more messages until the lane's batch is full, or limits.Wait is over.
func (b *buffer) fillUp(l *lane, limits Limits) {
	q, over := l.queue, false
	timer := time.AfterFunc(limits.Wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		over = true
		q.full.Signal()
	})
	defer timer.Stop()
	q.filling = true
	for full := false; !full && !over && !b.draining && !b.noTake; full = b.fill(l, limits, false) {
		q.lackMessages, q.lackBytes = limits.Messages-len(l.batch), limits.Bytes-l.bytes
		q.full.Wait()
	}
	q.filling = false
}
