package sources

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

const (
	// defaultTick is how often drops are counted and denied subscriptions looked after.
	defaultTick = time.Second
	// deniedRetry bounds the pause before a denied subscription is tried again. nats.go itself tries only
	// when it reconnects, and the server forgets a subscription that it has denied.
	deniedRetryMin, deniedRetryMax = 2 * time.Second, time.Minute
	// flushTimeout is how long the server may take to answer a subscription that is tried again.
	flushTimeout = 5 * time.Second
	// drainPoll is how often a drain looks whether nats.go's queues are empty.
	drainPoll = 5 * time.Millisecond
)

// An attachment is a source's subscriptions on one *nats.Conn. Its methods are called by Run's goroutine.
type attachment struct {
	core   *Core
	nc     *nats.Conn
	accept func(*relay.Message) error
	subs   []*subscription
	drops  episode
	errs   chan denial // from the connection's event goroutine
	remove func()
}

// A denial is the server's word that it does not take a subscription, and in which life of the connection it was given.
type denial struct {
	err        error
	reconnects uint64
}

// A subscription is one subject. A denied one is kept and tried again for ever.
type subscription struct {
	subject string
	sub     *nats.Subscription
	done    chan struct{} // closed when its last callback has returned
	counted int           // of sub.Dropped()

	denied   bool
	deniedIn uint64 // in which life of the connection, as far as is known
	attempt  int    // since it was denied
	retryAt  time.Time

	draining  bool
	drainedIn uint64 // in which life of the connection
}

func newAttachment(c *Core, nc *nats.Conn, accept func(*relay.Message) error) *attachment {
	a := &attachment{core: c, nc: nc, accept: accept, drops: episode{log: c.log}}
	// Room for several rounds of violations: one each subject. A lost one is heard again at its next retry.
	a.errs = make(chan denial, 4*len(c.cfg.Subjects))
	a.remove = c.conn.OnError(func(err error) {
		violation, ok := errors.AsType[*natsconn.PermissionError](err)
		if ok && violation.Publish || !ok && !errors.Is(err, nats.ErrMaxSubscriptionsExceeded) {
			return
		}
		select {
		case a.errs <- denial{err, c.conn.Stats().Reconnects}:
		default:
		}
	})
	return a
}

// run subscribes, and looks after the subscriptions until ctx ends (it drains them then) or nats.go
// has closed the connection for good. Its error means that the subscriptions are not valid.
func (a *attachment) run(ctx context.Context, closed <-chan struct{}) error {
	for _, subject := range a.core.cfg.Subjects {
		s := &subscription{subject: subject}
		err := a.subscribe(s)
		if errors.Is(err, nats.ErrBadSubject) || errors.Is(err, nats.ErrBadQueueName) {
			return fmt.Errorf("core source: subscribe to %q in queue group %q: %w", subject, a.core.cfg.Queue, err)
		}
		if err != nil {
			break // the connection is closed, or about to be: closed says when
		}
		a.subs = append(a.subs, s)
	}
	ticker := time.NewTicker(a.core.tick)
	defer ticker.Stop()
	a.confirm(ctx)
	for {
		select {
		case <-ctx.Done():
			a.drain()
			return nil
		case <-closed:
			return nil
		case d := <-a.errs:
			a.heed(d)
		case now := <-ticker.C:
			a.confirm(ctx)
			a.countDrops(now)
			a.retryDenied(ctx, now)
		}
	}
}

// confirm makes sure, once, that the server knows of the subscriptions: what is published after that arrives here. If it denies
// one, that comes before its answer.
func (a *attachment) confirm(ctx context.Context) {
	if a.core.up.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if a.nc.FlushWithContext(ctx) == nil {
		a.core.up.Store(true)
	}
}

// close ends what is left, and waits for the callbacks.
func (a *attachment) close() {
	a.remove()
	for _, s := range a.subs {
		a.unsubscribe(s)
		if s.denied {
			a.core.denied.Add(-1)
		}
	}
	a.drops.finish()
}

func (a *attachment) subscribe(s *subscription) error {
	sub, err := a.nc.QueueSubscribe(s.subject, a.core.cfg.Queue, a.core.handler(a.nc, a.accept))
	if err != nil {
		return err
	}
	done := make(chan struct{})
	ended := sync.OnceFunc(func() { close(done) })
	s.sub, s.done, s.counted = sub, done, 0
	sub.SetClosedHandler(func(string) { ended() })
	if !sub.IsValid() {
		ended() // the connection was closed before the handler was set
	}
	// nats.go has no way to give the limits with the subscription; until here its own hold, which are
	// larger (500,000 messages, 64 MiB). An error means that it is closed already.
	_ = sub.SetPendingLimits(a.core.limits(len(a.core.cfg.Subjects), a.nc.MaxPayload()))
	return nil
}

// unsubscribe ends one subscription at once; what nats.go still holds of it is lost.
func (a *attachment) unsubscribe(s *subscription) {
	a.countDropped(s)
	_ = s.sub.Unsubscribe() // an error means that it is closed already
	<-s.done
}

// drain ends the subscriptions, and returns when everything that the client had received of them
// has been passed to accept.
func (a *attachment) drain() {
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	for !a.drained() {
		<-poll.C
	}
}

// drained says whether all subscriptions have come to their ends.
func (a *attachment) drained() bool {
	all, conn := true, a.core.conn.Stats()
	for _, s := range a.subs {
		a.countDropped(s)
		select {
		case <-s.done:
		default:
			all = false
			a.endSoon(s, conn)
		}
	}
	return all
}

// endSoon sees to it that a subscription gets no more, and ends when its queue is empty. Drain first makes a round trip to the server; without a
// connection that would last 10 s, so there the subscription just ends. When nats.go comes back it subscribes again, whatever was drained before.
func (a *attachment) endSoon(s *subscription, conn natsconn.Stats) {
	switch pending, _, err := s.sub.Pending(); {
	case conn.Connected && (!s.draining || s.drainedIn != conn.Reconnects):
		s.draining, s.drainedIn = true, conn.Reconnects
		_ = s.sub.Drain() // an error means that it is closed already
	case !conn.Connected && err == nil && pending == 0:
		_ = s.sub.Unsubscribe()
	}
}

// countDrops adds up what nats.go has dropped since the last time.
func (a *attachment) countDrops(now time.Time) {
	n := 0
	for _, s := range a.subs {
		n += a.countDropped(s)
	}
	a.drops.observe(n, now)
}

func (a *attachment) countDropped(s *subscription) int {
	total, err := s.sub.Dropped()
	if err != nil { // closed
		return 0
	}
	n := total - s.counted
	s.counted = total
	a.core.dropped.Add(uint64(n))
	return n
}

// heed takes note of a denial. A violation concerns the subscription that it names; that the server takes no more subscriptions may
// concern any.
func (a *attachment) heed(d denial) {
	violation, _ := errors.AsType[*natsconn.PermissionError](d.err)
	for _, s := range a.subs {
		if violation == nil || violation.Subject == s.subject && violation.Queue == a.core.cfg.Queue {
			a.deny(s, d)
		}
	}
}

func (a *attachment) deny(s *subscription, d denial) {
	s.deniedIn = d.reconnects
	if s.denied {
		return // said already; natsconn logs the repeats, throttled
	}
	pause := a.core.deniedPause(0)
	s.denied, s.attempt, s.retryAt = true, 0, time.Now().Add(pause)
	a.core.denied.Add(1)
	a.core.log.Error().Err(d.err).Str("subject", s.subject).Str("queue", a.core.cfg.Queue).Dur("next_in", pause.Round(time.Millisecond)).
		Msg("the server denies the subscription: nothing is received on it; trying again for ever")
}

// retryDenied subscribes again where it was denied, after a pause, or when nats.go has done so with a new connection.
func (a *attachment) retryDenied(ctx context.Context, now time.Time) {
	conn := a.core.conn.Stats()
	if !conn.Connected {
		return // nats.go subscribes again when it is back
	}
	for _, s := range a.subs {
		if !s.denied || now.Before(s.retryAt) && s.deniedIn == conn.Reconnects {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		s.attempt++
		s.retryAt = now.Add(a.core.deniedPause(s.attempt))
		if a.permitted(ctx, s) {
			s.denied = false
			a.core.denied.Add(-1)
			a.core.log.Info().Str("subject", s.subject).Msg("the server permits the subscription now")
		}
	}
}

// permitted subscribes again, unless nats.go has, and says whether the server has taken it. The violation precedes the PONG on the
// wire; its event may come later than the flush returns, but nats.go's LastError is set by then.
func (a *attachment) permitted(ctx context.Context, s *subscription) bool {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	before := a.nc.LastError()
	if reconnects := a.core.conn.Stats().Reconnects; s.deniedIn == reconnects {
		if pending, _, err := s.sub.Pending(); err == nil && pending > 0 {
			return false // it would be lost: what came before the denial, or though it is another subscription that the server has no room for
		}
		a.unsubscribe(s)
		if err := a.subscribe(s); err != nil {
			return false // the connection is closed: run hears of it
		}
	} else {
		// It may be one that messages come on by now: they would be lost with it. A violation may be its own, and have come already.
		s.deniedIn = reconnects
		if errors.Is(before, nats.ErrPermissionViolation) {
			return false
		}
	}
	if err := a.nc.FlushWithContext(ctx); err != nil {
		return false // cut: nats.go subscribes again with the next connection
	}
	after := a.nc.LastError()
	// Too many subscriptions is one and the same error each time: it cannot be seen to be gone.
	return after == before && !errors.Is(after, nats.ErrMaxSubscriptionsExceeded)
}

func deniedPause(attempt int) time.Duration {
	ceiling := min(deniedRetryMin<<min(attempt, 10), deniedRetryMax)
	return ceiling/2 + rand.N(ceiling/2)
}
