package relay

import (
	"context"
	"errors"

	"golang.org/x/time/rate"
)

var errUnconfirmed = errors.New("the sink confirmed only a part of the batch")

// A lane delivers one batch at a time: message n+1 of a lane is not offered to the sink before n is settled, but within a batch, which
// the sink keeps in order. A batch that a Streamer delivers may grow meanwhile.
type lane struct {
	pulse pulse
	queue *queue
	batch []*Message // taken and not settled; guarded by buffer.mu, changed by this lane only
	bytes int64      // of the batch; guarded like it
	open  Batch      // the batch, while a Streamer delivers it; the lane's own
}

// A delivery moves messages from the buffer to the sink, and to the dead letters what the sink will not have.
type delivery struct {
	buffer      *buffer
	gate        *gate
	sink        Sink
	streamer    Streamer // the sink, if it is one and there is no rate limit
	dead        *deadLetterOffice
	limits      Limits
	limiter     *rate.Limiter // nil: as fast as the sink takes them
	maxAttempts int           // 0 = for ever
	count       *counters
}

func newDelivery(o DeliveryOptions, b *buffer, g *gate, sink Sink, dead *deadLetterOffice, count *counters) *delivery {
	d := &delivery{buffer: b, gate: g, sink: sink, dead: dead, limits: sink.Limits(), maxAttempts: o.MaxAttempts, count: count}
	d.streamer, _ = sink.(Streamer)
	if o.RateLimit > 0 {
		d.streamer = nil
		d.limits.Messages = min(d.limits.Messages, o.RateLimit)      // a batch is no more than a second's worth,
		burst := max(d.limits.Messages, o.RateLimit/rateGranularity) // and a timer that is late costs no throughput
		d.limiter = rate.NewLimiter(rate.Limit(o.RateLimit), burst)
	}
	return d
}

// rateGranularity is how many parts a second of the rate limit has: what a part allows may go at once.
const rateGranularity = 100

// runLane delivers until the buffer has nothing more to take, the gates have stopped, or ctx ends.
// What is unconfirmed then stays in the buffer.
func (d *delivery) runLane(ctx context.Context, l *lane) {
	ctx = withPulse(ctx, &l.pulse)
	out := make([]Outcome, d.limits.Messages)
	for {
		batch := d.buffer.take(l, d.limits)
		if len(batch) == 0 {
			return
		}
		for len(batch) > 0 {
			var err error
			if batch, err = d.step(ctx, l, out); err != nil {
				return
			}
		}
	}
}

// step waits for the gate, and offers the lane's batch to the sink once. If there are messages in it that are not to be offered
// any more, it puts those away instead. It returns what is still to be delivered; an error says that the route stops.
func (d *delivery) step(ctx context.Context, l *lane, out []Outcome) ([]*Message, error) {
	p, err := d.gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	batch := d.buffer.expire(l)
	out = out[:len(batch)]
	clear(out)
	if d.condemn(batch, out) || len(batch) == 0 {
		d.gate.release(p)
		return d.bury(ctx, l, out)
	}
	if d.limiter != nil {
		if err := d.limiter.WaitN(ctx, len(batch)); err != nil {
			d.gate.release(p)
			return nil, err
		}
	}
	d.attempt(ctx, p, l, out)
	return d.bury(ctx, l, out[:len(l.batch)])
}

// attempt offers the lane's batch to the sink. What is left of it has the first of out as outcomes.
func (d *delivery) attempt(ctx context.Context, p pass, l *lane, out []Outcome) {
	l.pulse.at(sending)
	err := d.offer(ctx, l, out)
	out = out[:len(l.batch)]
	l.pulse.at(settling)
	rest := d.buffer.settle(l, out)
	l.pulse.at(resting)
	switch {
	case err == nil && !anyUnconfirmed(out[:len(rest)]):
		d.count.attemptsOK.Add(1)
		d.gate.report(p, nil)
	case ctx.Err() != nil:
		d.gate.release(p) // cut short by us, not the endpoint's fault
		return
	default:
		d.count.attemptsFailed.Add(1)
		if err == nil {
			err = errUnconfirmed
		}
		d.gate.report(p, err)
	}
	d.countAttempt(rest, out, err)
}

// offer calls the sink, and leaves the outcomes of what is then the lane's batch, which may be more or less than before, in out.
func (d *delivery) offer(ctx context.Context, l *lane, out []Outcome) error {
	if d.streamer == nil {
		return d.sink.Deliver(ctx, l.batch, out)
	}
	l.open.begin(d, l)
	err := d.streamer.Stream(ctx, &l.open)
	copy(out[:len(l.batch)], l.open.end())
	return err
}

func anyUnconfirmed(out []Outcome) bool {
	for i := range out {
		if out[i].Status == Unconfirmed {
			return true
		}
	}
	return false
}

// countAttempt notes that an attempt has not delivered the messages, and gives those up that have had all of theirs. At a blocked
// endpoint attempts do not count: somebody has to mend it, and until then nothing is given up.
func (d *delivery) countAttempt(rest []*Message, out []Outcome, err error) {
	fault, _ := errors.AsType[*Fault](err)
	for i, m := range rest {
		if out[i].Status == Refused {
			m.attempts++
			continue
		}
		if fault != nil && fault.Blocked {
			continue
		}
		if m.attempts++; d.maxAttempts == 0 || m.attempts < d.maxAttempts {
			continue
		}
		out[i] = Outcome{Status: Refused, Err: &verdict{DeadMaxAttempts, err}}
		if fault != nil {
			out[i].Code = fault.Code
		}
	}
}
