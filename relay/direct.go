package relay

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// A Responder is a sink that answers. What it answers are requests: messages with a Respond function.
//
// Respond sends the request and returns what the far side answered, whatever that says; an error means that there is no
// answer. It is called from many goroutines, beside Deliver, and bounds its own time: a context that ends of itself is
// context.DeadlineExceeded. It never tries twice, for the caller may.
type Responder interface {
	Respond(ctx context.Context, m *Message) (Answer, error)
}

// An Answer is what a request gets.
type Answer struct {
	Header Header
	Data   []byte
	Fault  *AnswerFault // nil: all is well
}

// An AnswerFault says to who asked that the request has failed. It is for strangers: it names nothing of the inside.
type AnswerFault struct {
	Code int // in HTTP's terms
	Text string
}

// Error implements error, for a Responder that knows what to answer though it has no answer: a request that cannot be sent, a
// response that cannot be passed on. The endpoint is fine then.
func (f *AnswerFault) Error() string { return fmt.Sprintf("%d %s", f.Code, f.Text) }

// DropUnanswered is the reason for giving up a request that the far side did not answer; who asked has been told, if that was possible.
const DropUnanswered = "unanswered"

// faults that the relay itself answers with.
func overloaded() *AnswerFault  { return &AnswerFault{503, "too many requests under way"} }
func unavailable() *AnswerFault { return &AnswerFault{503, "endpoint unavailable"} }
func paused() *AnswerFault      { return &AnswerFault{503, "relay is paused"} }
func stopping() *AnswerFault    { return &AnswerFault{503, "relay is stopping"} }
func timedOut() *AnswerFault    { return &AnswerFault{504, "endpoint timed out"} }
func unfit() *AnswerFault       { return &AnswerFault{500, "filter failed"} }
func looped() *AnswerFault      { return &AnswerFault{508, "loop detected"} }

// A direct is the way of requests through a route: past the buffer, since an answer is of use only now, and past the gate,
// since each of them has somebody waiting who decides what an endpoint that is away means. All is bounded by the places.
type direct struct {
	responder Responder
	places    chan struct{} // one for each request that may be under way
	count     *counters
	drops     *drops
	delivered func(*Message) // notes how long it took

	ctx     context.Context // of the requests; set by start
	paused  atomic.Bool
	failing atomic.Bool // the last request that has ended got no answer
}

var (
	errOverloaded = errors.New("more requests at a time than delivery.in_flight allows")
	errPaused     = errors.New("the route is paused")
	errUnanswered = errors.New("the last request got no answer")
)

// newDirect returns nil if the sink does not answer.
func newDirect(sink Sink, inFlight int, count *counters, drops *drops, delivered func(*Message)) *direct {
	responder, ok := sink.(Responder)
	if !ok {
		return nil
	}
	return &direct{responder: responder, places: make(chan struct{}, inFlight), count: count, drops: drops, delivered: delivered}
}

// start is called before the first request. The requests end with ctx.
func (d *direct) start(ctx context.Context) {
	if d != nil {
		d.ctx = ctx
	}
}

func (d *direct) setPaused(paused bool) {
	if d != nil {
		d.paused.Store(paused)
	}
}

// takes reports whether the message is a request that is to be answered.
func (d *direct) takes(m *Message) bool { return d != nil && m.Respond != nil }

// serve sees to the request, and does not wait for it.
func (d *direct) serve(m *Message) {
	if d.paused.Load() {
		d.giveUp(m, paused(), errPaused)
		return
	}
	select {
	case d.places <- struct{}{}:
	default:
		d.giveUp(m, overloaded(), errOverloaded)
		return
	}
	go func() {
		defer func() { <-d.places }() // last: wait is for what has been answered
		d.answer(m)
	}()
}

func (d *direct) answer(m *Message) {
	answer, err := d.responder.Respond(d.ctx, m)
	fault, known := errors.AsType[*AnswerFault](err)
	switch {
	case err == nil:
		d.failing.Store(false)
		d.count.attemptsOK.Add(1)
		d.pass(m, answer)
		return
	case d.ctx.Err() != nil:
		fault = stopping()
	case known:
	case errors.Is(err, context.DeadlineExceeded):
		d.failed()
		fault = timedOut()
	default:
		d.failed()
		fault = unavailable()
	}
	d.giveUp(m, fault, err)
}

func (d *direct) failed() {
	d.failing.Store(true)
	d.count.attemptsFailed.Add(1)
}

// pass gives the answer to who asked.
func (d *direct) pass(m *Message, answer Answer) {
	if err := m.Respond(answer); err != nil {
		d.drops.add(DropUnanswered, 1, err)
		return
	}
	d.delivered(m)
	d.count.delivered.Add(1)
	d.count.deliveredBytes.Add(uint64(len(m.Data)))
}

// giveUp tells who asked that there is no answer. why is for the log.
func (d *direct) giveUp(m *Message, fault *AnswerFault, why error) {
	err := m.Respond(Answer{Fault: fault})
	d.drops.add(DropUnanswered, 1, errors.Join(why, err))
}

// refuse answers a message that the route does not take, if it is a request.
func (d *direct) refuse(m *Message, fault *AnswerFault) {
	if d.takes(m) {
		_ = m.Respond(Answer{Fault: fault}) // the message is counted already
	}
}

// wait waits until no request is under way, or ctx ends. It takes all places for that, and gives them back.
func (d *direct) wait(ctx context.Context) {
	if d == nil {
		return
	}
	taken := 0
	defer func() {
		for range taken {
			<-d.places
		}
	}()
	for taken < cap(d.places) {
		select {
		case d.places <- struct{}{}:
			taken++
		case <-ctx.Done():
			return
		}
	}
}

// trouble returns why the requests fail, nil if they do not.
func (d *direct) trouble() error {
	if d.health() == healthy {
		return nil
	}
	return errUnanswered
}

// health is what the requests tell of the endpoint.
func (d *direct) health() health {
	if d != nil && d.failing.Load() {
		return failing
	}
	return healthy
}
