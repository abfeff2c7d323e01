package relay

import (
	"context"
	"time"
)

// A Sink delivers batches to one endpoint.
//
// Deliver is called from Limits().Lanes goroutines at most, each with a batch of its own. It returns when every
// message of the batch is settled, or the endpoint has failed, or ctx has ended. It
// writes the outcome of batch[i] to out[i]; len(out) == len(batch), all Unconfirmed on entry.
// A sink never retries by itself, never reorders, never keeps a message after it has
// returned, and never reports Delivered before the far side has confirmed.
//
// A non-nil error says that the endpoint as a whole failed: everything Unconfirmed is sent
// again, in order, when the endpoint's gate lets it. A *Fault tells the gate more.
// A nil error with Unconfirmed messages is a bug of the sink; they are sent again.
//
// Close is called once, after the last Deliver has returned.
type Sink interface {
	Deliver(ctx context.Context, batch []*Message, out []Outcome) error
	Limits() Limits
	Close(ctx context.Context) error
}

// Limits says how a sink wants to be called. The route reads them once, at its start.
type Limits struct {
	Messages int   // most messages a batch, at least 1
	Bytes    int64 // most bytes a batch, as Message.Size counts; a batch of one may exceed it
	Lanes    int   // most concurrent Deliver calls that are of use

	// Wait is how long a lane whose batch is not full waits for more messages, from the first one on; 0 = not at all.
	Wait time.Duration
}

// Status is what became of one message in one attempt.
type Status uint8

const (
	Unconfirmed Status = iota // not known to have arrived: to be sent again
	Delivered                 // the far side has confirmed it
	Refused                   // the far side will never take this message; the endpoint is fine

	buried Status = 255 // the lane's own: it was given up, and is a dead letter or counted as dropped
)

// Outcome is the result of one attempt for one message.
type Outcome struct {
	Status Status
	Err    error // why, when Refused
	Code   int   // the status that the far side gave, when Refused; 0 = none
}

// A Fault is an endpoint's failure with advice to its gate.
type Fault struct {
	Err error
	// Blocked: the endpoint or a permission is wrong, and somebody has to mend it; time alone will not.
	Blocked bool
	// RetryAfter is the endpoint's own wish for a pause; 0 = none.
	RetryAfter time.Duration
	// Code is the status that the endpoint gave; 0 = none.
	Code int
}

// Error leaves out that the fault is one that blocks: whoever shows it has words of his own for that.
func (f *Fault) Error() string { return f.Err.Error() }

func (f *Fault) Unwrap() error { return f.Err }
