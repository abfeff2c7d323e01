package relay

import "context"

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
	settled  int // so many are settled, from the first on: the others are the lane's batch
}

// longestBatch bounds what a Batch may grow to, in multiples of the sink's limit: its slots are kept, 40 bytes for each message, and a lane keeps
// them for the next batch.
const longestBatch = 4

// begin makes b the lane's batch.
func (b *Batch) begin(d *delivery, l *lane) {
	b.delivery, b.lane, b.settled = d, l, 0
	b.Messages, b.Outcomes = b.Messages[:0], b.Outcomes[:0]
	b.add(l.batch)
}

func (b *Batch) add(more []*Message) {
	b.Messages = append(b.Messages, more...)
	b.Outcomes = append(b.Outcomes, make([]Outcome, len(more))...)
}

// end returns the outcomes of what is not settled, and forgets the messages.
func (b *Batch) end() []Outcome {
	clear(b.Messages)
	return b.Outcomes[b.settled:]
}

// More adds what has become ready meanwhile, as much as the sink's limits allow for beside what is not settled, and reports whether that is anything.
// It does not wait.
func (b *Batch) More() bool {
	d := b.delivery
	if d == nil || len(b.Messages) >= longestBatch*d.limits.Messages || !d.gate.isOpen() {
		return false
	}
	more := d.buffer.more(b.lane, d.limits)
	b.add(more)
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
	if n == b.settled {
		return
	}
	l := b.lane
	l.pulse.at(settling)
	b.delivery.buffer.settle(l, b.Outcomes[b.settled:n])
	clear(b.Messages[b.settled:n])
	b.settled = n
	l.pulse.at(sending)
}
