package sources

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

// What a consumer is told of a message, at its reply subject (NATS ADR-15).
var (
	ackDone     = []byte("+ACK")
	ackProgress = []byte("+WPI")
	ackReturned = []byte("-NAK")
)

// An ack is one of them, on its way.
type ack struct {
	reply string
	word  []byte
}

// A ledger knows of each message that the consumer has delivered what has become of it:
//
//	queue: not yet taken by the route │ open: the route's │ done, above one that is not │ settled
//
// Redeliveries are looked up in it by their stream sequence, so none reaches the route twice: what is held is not delivered again, and what is
// settled is only acknowledged again. Its memory is bounded by the consumer: what is held by max_ack_pending; what is settled takes 16 bytes for each
// run of neighbours, of which 4 × max_ack_pending are remembered.
//
// All methods are safe for concurrent use.
type ledger struct {
	ackAll bool
	wake   func() // the writer of acknowledgements has something to do; it must not block
	news   chan struct{}
	room   func() // something was settled or passed on; called with the lock held

	mu      sync.Mutex // guards all below, the state of all held, and the accounts of the pull
	entries []*held    // open, done and returned, by sequence; done ones only above another
	open    int
	done    int
	settled runs
	last    uint64    // the highest sequence ever delivered
	newest  time.Time // when the stream stored the newest message ever delivered
	window  window

	queue      []*relay.Message // by sequence; those behind what is awaited stay in it
	queueBytes int              // with those that are being passed on
	passing    bool             // the pump passes on what next has returned
	passedTo   uint64           // the highest sequence that was passed on
	awaited    awaited

	acks   []ack
	runAck string // the last for a run of messages

	// A consumer that was created again does not know the reply subjects of its predecessor, and a stream that was created again has other
	// messages under the same sequences.
	consumer, stream uint32
	tick             uint32
	repeats          uint64 // redeliveries that the route has not seen
}

// A held is the receipt of one message.
type held struct {
	ledger   *ledger
	sequence uint64
	size     int // of the message, as the server counts it

	// Guarded by ledger.mu.
	reply            string
	consumer, stream uint32 // that it was delivered by
	tick             uint32 // when it was last delivered or extended
	state            state
}

type state uint8

const (
	stateOpen     state = iota
	stateDone           // acknowledged, or about to be
	stateReturned       // given back to the consumer, which is to deliver it again
)

func newLedger(ackAll bool, maxAckPending int, ackWait time.Duration) *ledger {
	l := &ledger{ackAll: ackAll, news: make(chan struct{}, 1), wake: func() {}, room: func() {}}
	l.window = newWindow(maxAckPending, ackWait, time.Now())
	l.settled.most = 4 * maxAckPending
	return l
}

// take enters a delivery, and queues the message unless it is known. m.Receipt is set by it. The lock is held.
func (l *ledger) take(m *relay.Message, size int, reply string) {
	l.awaited.deliver(m.Sequence)
	l.place(m, size, reply)
	signal(l.news)
}

// place finds out what the delivery is.
func (l *ledger) place(m *relay.Message, size int, reply string) {
	n := m.Sequence
	if m.Time.After(l.newest) {
		l.newest = m.Time
	}
	if n > l.last {
		l.last = n
		l.enter(len(l.entries), m, size, reply)
		return
	}
	i, found := l.find(n)
	switch {
	case found:
		l.again(l.entries[i], m, reply)
	case l.settled.has(n):
		l.repeats++
		l.acknowledgeAgain(n, reply)
	default:
		l.enter(i, m, size, reply) // what somebody else has given back, or a cut has taken
	}
}

// isAnother reports whether a message is another one than the ledger knows under its sequence: a stream stores the messages of higher sequences
// later. The lock is held.
func (l *ledger) isAnother(m *relay.Message) bool {
	return m.Sequence <= l.last && m.Time.After(l.newest)
}

// seen returns the highest sequence that was ever delivered, and when the stream stored the newest message that was.
func (l *ledger) seen() (last uint64, newest time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.newest
}

func (l *ledger) find(n uint64) (int, bool) {
	return slices.BinarySearchFunc(l.entries, n, func(h *held, n uint64) int { return cmp.Compare(h.sequence, n) })
}

// enter makes a new entry at i.
func (l *ledger) enter(i int, m *relay.Message, size int, reply string) {
	h := &held{ledger: l, sequence: m.Sequence, size: size, reply: reply, consumer: l.consumer, stream: l.stream, tick: l.tick}
	if i == len(l.entries) {
		l.entries = append(l.entries, h)
	} else {
		l.entries = slices.Insert(l.entries, i, h)
	}
	l.open++
	l.enqueue(m, h)
}

// again is a redelivery of what has an entry.
func (l *ledger) again(h *held, m *relay.Message, reply string) {
	h.reply, h.consumer, h.tick = reply, l.consumer, l.tick
	switch h.state {
	case stateReturned:
		h.state = stateOpen
		l.open++
		l.enqueue(m, h)
	case stateDone:
		l.repeats++
		l.acknowledgeAgain(h.sequence, reply)
	case stateOpen:
		l.repeats++
	}
}

// acknowledgeAgain says once more that a message is done: the first time was lost.
func (l *ledger) acknowledgeAgain(n uint64, reply string) {
	if !l.ackAll || len(l.entries) == 0 || n < l.entries[0].sequence {
		l.send(reply, ackDone)
	}
}

// Settle implements relay.Receipt.
func (h *held) Settle(f relay.Fate) {
	l := h.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.stream != l.stream || h.state != stateOpen {
		return // its stream is gone
	}
	l.open--
	if f == relay.FateReturned {
		l.giveBack(h)
		return
	}
	h.state = stateDone
	l.done++
	l.window.settle()
	if !l.ackAll && h.consumer == l.consumer {
		l.send(h.reply, ackDone)
	}
	l.advance()
	l.room()
}

// giveBack asks the consumer to deliver a message again.
func (l *ledger) giveBack(h *held) {
	h.state = stateReturned
	if h.consumer == l.consumer {
		l.send(h.reply, ackReturned)
	}
}

// advance forgets the entries that are done and have none before them that is not. With ackAll, the last of them is acknowledged, for all.
func (l *ledger) advance() {
	n := 0
	for n < len(l.entries) && l.entries[n].state == stateDone {
		l.settled.add(l.entries[n].sequence)
		n++
	}
	if n > 0 {
		if h := l.entries[n-1]; l.ackAll && h.consumer == l.consumer {
			l.acknowledgeRun(h.reply)
		}
		clear(l.entries[:n])
		l.entries = l.entries[n:]
		l.done -= n
	}
	// One message that takes long must not make this grow for as long as it takes. Acknowledging by runs needs them all, in order.
	if !l.ackAll && l.done > firstWindow && l.done > len(l.entries)/2 {
		l.compact()
	}
}

// acknowledgeRun acknowledges a message and all before it. It takes the place of the last such acknowledgement that is not yet written.
func (l *ledger) acknowledgeRun(reply string) {
	if n := len(l.acks); n > 0 && l.acks[n-1].reply == l.runAck {
		l.acks[n-1].reply = reply
	} else {
		l.send(reply, ackDone)
	}
	l.runAck = reply
}

func (l *ledger) compact() {
	l.entries = slices.DeleteFunc(l.entries, func(h *held) bool {
		if h.state == stateDone {
			l.settled.add(h.sequence)
		}
		return h.state == stateDone
	})
	l.done = 0
}

// send queues an acknowledgement.
func (l *ledger) send(reply string, word []byte) {
	l.acks = append(l.acks, ack{reply, word})
	if len(l.acks) == 1 {
		l.wake()
	}
}

// extend returns the reply subjects of what has been held for longer than two ticks, and counts a tick.
func (l *ledger) extend(now time.Time) []ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tick++
	l.window.tick(now, l.open)
	var due []ack
	for _, h := range l.entries {
		if h.state == stateOpen && l.tick-h.tick > 2 && h.consumer == l.consumer {
			h.tick = l.tick
			due = append(due, ack{h.reply, ackProgress})
		}
	}
	return due
}

// takeAcks returns what is to be written, and takes spare for what is to come.
func (l *ledger) takeAcks(spare []ack) []ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	acks := l.acks
	l.acks = spare[:0]
	return acks
}

// putBackAcks puts acknowledgements that could not be written before those that have come since.
func (l *ledger) putBackAcks(acks []ack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks = slices.Concat(acks, l.acks)
}

// newConsumer makes the ledger's reply subjects those of a consumer that is gone. What is held comes again, and is known then.
func (l *ledger) newConsumer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.consumer++
	l.acks, l.runAck = nil, ""
}

// newStream forgets everything: the sequences mean other messages now, from the given one on at least. What is in the queue is passed on all the same, before
// the messages of the new stream. The lock is held.
func (l *ledger) newStream(from uint64) {
	l.stream++
	l.consumer++
	l.acks = slices.DeleteFunc(l.acks, func(a ack) bool {
		at, _ := parsePlace(a.reply)
		return at.sequence >= from
	})
	l.runAck = ""
	l.entries, l.open, l.done = nil, 0, 0
	l.settled.all = nil
	l.last, l.newest, l.passedTo = 0, time.Time{}, 0
	l.awaited = awaited{}
}

// giveBackRest returns everything that is still open to the consumer, in order.
func (l *ledger) giveBackRest() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue, l.queueBytes = nil, 0
	for _, h := range l.entries {
		if h.state == stateOpen {
			l.giveBack(h)
			n++
		}
	}
	l.open = 0
	return n
}

// signal leaves a token in a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
