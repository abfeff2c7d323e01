package relay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A verdict is an error that says that a message is to become a dead letter, and not to be offered to the sink any more.
type verdict struct {
	reason string
	err    error
}

func (v *verdict) Error() string { return v.err.Error() }
func (v *verdict) Unwrap() error { return v.err }

// condemn gives a message a verdict before it is put into the buffer. It waits there for its turn, on disk if need be, and
// then goes to the dead letters.
func (m *Message) condemn(reason string, err error) { m.verdict = &verdict{reason, err} }

// condemn marks the messages of a batch that must not be offered to the sink as refused, and reports whether there are any.
func (d *delivery) condemn(batch []*Message, out []Outcome) (any bool) {
	for i, m := range batch {
		switch {
		case m.verdict != nil:
			out[i] = Outcome{Status: Refused, Err: m.verdict}
		case d.buffer.opts.KeepExpired && d.buffer.expired(m.Time):
			err := fmt.Errorf("received at %s, max_age is %v", m.Time.UTC().Format(time.RFC3339), d.buffer.opts.MaxAge)
			out[i] = Outcome{Status: Refused, Err: &verdict{DeadMaxAge, err}}
		default:
			continue
		}
		any = true
	}
	return any
}

// bury makes dead letters of the messages of the lane's batch that out says are refused, and returns the rest. It may take as
// long as the store of the dead letters is away; until then they are the route's.
func (d *delivery) bury(ctx context.Context, l *lane, out []Outcome) ([]*Message, error) {
	var letters []*DeadLetter
	for i, m := range l.batch {
		if out[i].Status == Refused {
			letters = append(letters, d.dead.letter(m, out[i]))
		}
	}
	if len(letters) == 0 {
		return l.batch, nil
	}
	if err := d.dead.put(ctx, letters); err != nil {
		return nil, err
	}
	for i := range out {
		if out[i].Status == Refused {
			out[i].Status = buried
		}
	}
	return d.buffer.settle(l, out), nil
}

// A deadLetterOffice is the way to a route's dead letters: their store, and a gate before it, since a store is an endpoint
// like the sink, which may fail and come back.
type deadLetterOffice struct {
	route string
	store DeadLetters // nil: nobody keeps them, they are dropped
	gate  *gate
	count *drops // of letters stored, by reason
	drops *drops
}

// letter writes the letter of a refused message.
func (o *deadLetterOffice) letter(m *Message, out Outcome) *DeadLetter {
	letter := &DeadLetter{Message: m, Reason: DeadRefused, Err: out.Err, Code: out.Code, Attempts: m.attempts, Route: o.route, Time: time.Now()}
	if v, ok := errors.AsType[*verdict](out.Err); ok {
		letter.Reason = v.reason
	}
	return letter
}

// put returns nil when the letters are stored, or dropped if there is no store. It tries until then: an error says that
// the route stops, and that nothing is known to be stored.
func (o *deadLetterOffice) put(ctx context.Context, letters []*DeadLetter) error {
	if o.store == nil {
		addAll(o.drops, letters)
		return nil
	}
	for {
		p, err := o.gate.enter(ctx)
		if err != nil {
			return err
		}
		pulseOf(ctx).at(burying)
		displaced, err := o.store.Store(ctx, letters)
		pulseOf(ctx).at(resting)
		o.drops.add(DropDeadLetters, displaced, errDisplaced)
		switch {
		case err == nil:
			o.gate.report(p, nil)
			addAll(o.count, letters)
			return nil
		case ctx.Err() != nil:
			o.gate.release(p) // cut short by us, not the store's fault
			return ctx.Err()
		}
		o.gate.report(p, err)
	}
}

var errDisplaced = errors.New("dead_letter.max is reached, the oldest dead letters give way")

func addAll(to *drops, letters []*DeadLetter) {
	for _, d := range letters {
		to.add(d.Reason, 1, d.Err)
	}
}

// stored returns how many letters are in the store now; 0 if it cannot tell.
func (o *deadLetterOffice) stored() int {
	if counted, ok := o.store.(interface{ Stored() int }); ok {
		return counted.Stored()
	}
	return 0
}

// close closes the store, after the last put.
func (o *deadLetterOffice) close(ctx context.Context) error {
	o.count.close()
	if o.store == nil {
		return nil
	}
	return o.store.Close(ctx)
}
