package sources

import (
	"context"
	"slices"

	"github.com/natsrelay/natsrelay/relay"
)

// enqueue puts a message into the queue at its place, which nearly always is the end. One that comes too late for its place in the route is marked as such:
// nobody may take it for one that the far side has, because that has later ones.
func (l *ledger) enqueue(m *relay.Message, h *held) {
	m.Receipt = h
	m.Late = m.Sequence <= l.passedTo
	i := len(l.queue)
	for i > 0 && l.queue[i-1].Sequence > m.Sequence && l.queue[i-1].Receipt.(*held).stream == h.stream {
		i--
	}
	if i == len(l.queue) {
		l.queue = append(l.queue, m)
	} else {
		l.queue = slices.Insert(l.queue, i, m)
	}
	l.queueBytes += h.size
	l.awaited.come(m.Sequence)
}

// await has the queue wait for what the consumer is to deliver again, instead of for what it has waited for before.
func (l *ledger) await(a awaited) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.awaited = a
	signal(l.news)
	l.room()
}

// doubt takes what has a sequence up to the given one to come late from now on: later messages may have been passed on before it.
func (l *ledger) doubt(upTo uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passedTo = max(l.passedTo, upTo)
}

// next waits for messages, and returns those of the queue that need not wait. What it returned before has been passed on. It returns nil when ctx has ended.
func (l *ledger) next(ctx context.Context, spare []*relay.Message) []*relay.Message {
	for {
		l.mu.Lock()
		batch := l.takeReady(spare)
		if l.passing = len(batch) > 0; !l.passing {
			l.room() // what waits in the queue may take all the room there is
		}
		l.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return nil
		case len(batch) > 0:
			return batch
		}
		select {
		case <-l.news:
		case <-ctx.Done():
		}
	}
}

// takeReady takes out of the queue what may be passed on. The lock is held.
func (l *ledger) takeReady(spare []*relay.Message) (batch []*relay.Message) {
	n := 0
	for n < len(l.queue) && (l.awaited.none() || l.mayPass(l.queue[n])) {
		n++
	}
	switch n {
	case 0:
		return nil
	case len(l.queue):
		batch, l.queue = l.queue, spare[:0]
	default:
		batch = append(spare[:0], l.queue[:n]...)
		l.queue = slices.Delete(l.queue, 0, n)
	}
	if last := batch[n-1]; last.Receipt.(*held).stream == l.stream {
		l.passedTo = max(l.passedTo, last.Sequence)
	}
	return batch
}

// mayPass reports whether a message of the queue is behind nothing that is awaited.
func (l *ledger) mayPass(m *relay.Message) bool {
	return l.awaited.before(m.Sequence) || m.Receipt.(*held).stream != l.stream
}

// blocked reports whether all of the queue waits for what is to come. The lock is held.
func (l *ledger) blocked() bool {
	return !l.passing && (len(l.queue) == 0 || !l.mayPass(l.queue[0]))
}

// passed notes that the route has taken messages of the batch that next returned, of so many bytes.
func (l *ledger) passed(bytes int) {
	l.mu.Lock()
	l.queueBytes -= bytes
	l.room()
	l.mu.Unlock()
}

// giveBackWaiting returns what has not been passed on to the consumer, in order: another relay is to have it.
func (l *ledger) giveBackWaiting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.queue {
		h := m.Receipt.(*held)
		l.queueBytes -= h.size
		if h.stream == l.stream {
			l.open--
			l.giveBack(h)
		}
	}
	// If the other one delivers them, they never come again, and nothing may wait for them.
	l.entries = slices.DeleteFunc(l.entries, func(h *held) bool { return h.state == stateReturned })
	clear(l.queue)
	l.queue = l.queue[:0]
	l.awaited = awaited{}
	l.room()
}
