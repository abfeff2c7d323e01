package relay

import (
	"context"
	"slices"
)

// A Streamer is a Sink that keeps the order of what is under way by itself, so that it need not wait for a batch to be settled before it
// sends what comes behind. A route with no rate limit calls Stream in place of Deliver.
//
// Stream follows the rules of Deliver. Besides, it may ask for more while it waits for confirmations, and settle what has been confirmed
// meanwhile. What is unconfirmed in the end is sent again, in order: so nothing that came behind it may have arrived, unless order does not matter.
type Streamer interface {
	Sink
	Stream(ctx context.Context, b *Batch) error
}

// A Batch is what Stream is to deliver, in order. It is used by one goroutine, and ends with Stream.
// The zero value with messages and as many outcomes is a batch that does not grow.
type Batch struct {
	Messages []*Message // nil: settled before the end
	Outcomes []Outcome  // of Messages

	delivery *delivery
	lane     *lane
	settled  int       // so many are settled, from the first on: the others are the lane's batch
	scratch  []Outcome // of the lane's batch
}

// longestBatch bounds what a Batch may grow to, in multiples of the sink's limit: its slots are kept until it ends.
const longestBatch = 16

// begin makes b the lane's batch.
func (b *Batch) begin(d *delivery, l *lane, scratch []Outcome) {
	b.delivery, b.lane, b.scratch, b.settled = d, l, scratch, 0
	b.Messages = append(b.Messages[:0], l.batch...)
	b.Outcomes = append(b.Outcomes[:0], scratch[:len(l.batch)]...)
}

// end leaves the outcomes of what is not settled in scratch, and forgets the messages.
func (b *Batch) end() {
	copy(b.scratch, b.Outcomes[b.settled:])
	clear(b.Messages)
}

// More adds what has become ready meanwhile, as much as the sink's limits allow for beside what is not settled, and reports whether that is anything.
// It does not wait.
func (b *Batch) More() bool {
	d := b.delivery
	if d == nil || len(b.Messages) >= longestBatch*d.limits.Messages || !d.gate.isOpen() {
		return false
	}
	more := d.buffer.more(b.lane, d.limits)
	b.Messages = append(b.Messages, more...)
	b.Outcomes = slices.Grow(b.Outcomes, len(more))[:len(b.Messages)]
	clear(b.Outcomes[len(b.Messages)-len(more):])
	return len(more) > 0
}

// Settle settles the messages from the first on that are Delivered, up to one that is not: upstream gets to know, and there is room for more.
// Without it all are settled at the end.
func (b *Batch) Settle() {
	if b.delivery == nil {
		return
	}
	n := b.settled
	for n < len(b.Outcomes) && b.Outcomes[n].Status == Delivered {
		n++
	}
	confirmed := n - b.settled
	if confirmed == 0 {
		return
	}
	l := b.lane
	l.pulse.at(settling)
	out := b.scratch[:len(l.batch)]
	clear(out)
	copy(out, b.Outcomes[b.settled:n])
	b.delivery.buffer.settle(l, out)
	clear(b.Messages[b.settled:n])
	b.settled = n
	l.pulse.at(sending)
}
