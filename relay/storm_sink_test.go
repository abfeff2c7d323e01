package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// weather is how the sink does.
type weather string

const (
	sinkFair    weather = "fair"
	sinkDown    weather = "down"
	sinkBlocked weather = "blocked"
	sinkBusy    weather = "busy" // asks for a pause
	sinkFlaky   weather = "flaky"
)

// A stormSink is the sink of one run.
type stormSink struct {
	storm  *storm
	run    *run
	limits Limits

	inside int             // calls under way; guarded by storm.mu
	lines  map[string]bool // of which they have something; the same
}

// A sinkCall is one call of a stormSink.
type sinkCall struct {
	*stormSink
	lines map[string]bool
}

func (k *stormSink) Limits() Limits              { return k.limits }
func (k *stormSink) Close(context.Context) error { return nil }

func (k *stormSink) Deliver(ctx context.Context, batch []*Message, out []Outcome) error {
	c := k.enter()
	defer c.leave()
	c.offered(batch)
	if err := k.elapse(ctx); err != nil {
		return err
	}
	_, err := k.answer(batch, out)
	return err
}

// A streamingSink is a stormSink that confirms a batch bit by bit, and asks for more.
type streamingSink struct{ *stormSink }

func (k streamingSink) Stream(ctx context.Context, b *Batch) error {
	c := k.enter()
	defer c.leave()
	c.offered(b.Messages)
	for done := 0; ; {
		if err := k.elapse(ctx); err != nil {
			return err
		}
		next := min(done+1+rand.IntN(7), len(b.Messages))
		n, err := k.answer(b.Messages[done:next], b.Outcomes[done:next])
		done += n
		if err != nil {
			return err
		}
		b.Settle()
		had := len(b.Messages)
		if more := b.More(); !more && done == had {
			return nil
		}
		c.offered(b.Messages[had:])
	}
}

func (k *stormSink) enter() *sinkCall {
	s := k.storm
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.inside++; k.inside > min(k.limits.Lanes, k.run.options.Delivery.InFlight) || k.inside > 1 && k.run.options.Delivery.Ordering == OrderStrict {
		s.t.Errorf("%d calls of the sink at a time", k.inside)
	}
	return &sinkCall{k, map[string]bool{}}
}

func (c *sinkCall) leave() {
	c.storm.mu.Lock()
	defer c.storm.mu.Unlock()
	c.inside--
	for line := range c.lines {
		delete(c.stormSink.lines, line)
	}
}

// offered checks what a call is offered: no other one has something of the same line.
func (c *sinkCall) offered(batch []*Message) {
	s, k := c.storm, c.stormSink
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events += len(batch)
	var bytes int64
	for _, m := range batch {
		bytes += m.Size()
		if m.verdict != nil {
			s.t.Error("a message that is to become a dead letter is offered")
		}
		if k.run.options.Delivery.Ordering != OrderSubject || c.lines[m.Subject] {
			continue
		}
		if k.lines[m.Subject] {
			s.t.Errorf("two calls of the sink have messages of %q", m.Subject)
		}
		c.lines[m.Subject], k.lines[m.Subject] = true, true
	}
	if len(batch) > k.limits.Messages || bytes > k.limits.Bytes && len(batch) > 1 {
		s.t.Errorf("%d messages of %d bytes are offered, the limits are %+v", len(batch), bytes, k.limits)
	}
}

// elapse lets the sink take its time. If it is cut short, there must be a reason for that.
func (k *stormSink) elapse(ctx context.Context) error {
	s := k.storm
	s.mu.Lock()
	latency := s.latency
	if latency > 0 {
		latency = 1 + time.Duration(s.chance.Int64N(int64(latency)))
	}
	s.mu.Unlock()
	err := elapse(ctx, latency)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !k.run.killed && s.sunny && time.Since(s.stopping) < s.drain {
		s.t.Errorf("what was under way to a sink that works was cut off %v after the stop began", time.Since(s.stopping))
	}
	return err
}

// answer confirms or refuses messages, from the first on, and returns how many.
func (k *stormSink) answer(batch []*Message, out []Outcome) (n int, err error) {
	s := k.storm
	s.mu.Lock()
	defer s.mu.Unlock()
	n = len(batch)
	switch {
	case k.run.killed:
		return 0, errKilled
	case s.weather == sinkDown:
		return 0, errDown
	case s.weather == sinkBlocked:
		return 0, &Fault{Err: errDown, Blocked: true, Code: 401}
	case s.weather == sinkBusy:
		return 0, &Fault{Err: errDown, RetryAfter: time.Duration(s.chance.Int64N(int64(time.Minute))), Code: 429}
	case s.weather == sinkFlaky && s.chance.IntN(3) == 0:
		n, err = s.chance.IntN(n+1), errDown
	}
	for i, m := range batch[:n] {
		if s.copyOf(m).fated == poisoned {
			out[i] = Outcome{Status: Refused, Err: errors.New("status 422"), Code: 422}
			continue
		}
		out[i].Status = Delivered
		s.arrived(k.run, m)
	}
	return n, err
}

// A stormBox is the store of dead letters of one run.
type stormBox struct {
	storm *storm
	run   *run
}

func (b *stormBox) Store(_ context.Context, letters []*DeadLetter) (int, error) {
	s := b.storm
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case b.run.killed:
		return 0, errKilled
	case s.box != nil:
		return 0, s.box
	}
	s.events += len(letters)
	for _, l := range letters {
		c := s.copyOf(l.Message)
		if c.delivered == b.run {
			s.t.Errorf("parcel %d is delivered, and becomes a dead letter", c.n)
		}
		c.dead++
		b.run.dead++
	}
	return 0, nil
}

func (*stormBox) Close(context.Context) error { return nil }
