package relay

import (
	"context"
	"errors"
)

var errUnconfirmed = errors.New("the sink confirmed only a part of the batch")

// A lane delivers one batch at a time: message n+1 of a lane is not offered to the sink before n is settled.
type lane struct {
	queue *queue
	batch []*Message // taken and not settled; guarded by buffer.mu, changed by this lane only
}

// A delivery moves messages from the buffer to the sink.
type delivery struct {
	buffer *buffer
	gate   *gate
	sink   Sink
	limits Limits
	count  *counters
}

// runLane delivers until the buffer has nothing more to take, the gate has stopped, or ctx ends.
// What is unconfirmed then stays in the buffer.
func (d *delivery) runLane(ctx context.Context, l *lane) {
	out := make([]Outcome, d.limits.Messages)
	for {
		batch := d.buffer.take(l, d.limits)
		if len(batch) == 0 {
			return
		}
		for len(batch) > 0 {
			p, err := d.gate.enter(ctx)
			if err != nil {
				return
			}
			if batch = d.buffer.expire(l); len(batch) == 0 {
				d.gate.release(p)
				break
			}
			batch = d.attempt(ctx, p, l, out[:len(batch)])
		}
	}
}

// attempt offers the lane's batch to the sink once and returns what is still to be delivered.
func (d *delivery) attempt(ctx context.Context, p pass, l *lane, out []Outcome) []*Message {
	clear(out)
	err := d.sink.Deliver(ctx, l.batch, out)
	rest := d.buffer.settle(l, out)
	switch {
	case err == nil && len(rest) == 0:
		d.count.attemptsOK.Add(1)
		d.gate.report(p, nil)
	case ctx.Err() != nil:
		d.gate.release(p) // cut short by us, not the endpoint's fault
	default:
		d.count.attemptsFailed.Add(1)
		if err == nil {
			err = errUnconfirmed
		}
		d.gate.report(p, err)
	}
	return rest
}
