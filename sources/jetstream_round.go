package sources

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

// rounds runs one round after the other until ctx ends.
func (s *JetStream) rounds(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		received, err := s.round(ctx)
		if ctx.Err() != nil {
			return
		}
		if received {
			failures, s.waiting = 0, time.Time{}
		}
		pinned, _ := errors.AsType[*pinError](err)
		switch {
		case pinned != nil:
			s.setPin(pinned.pin)
		case errors.Is(err, errCut), errors.Is(err, errLookAgain):
			sleep(ctx, s.times.retryMin/2)
		case errors.Is(err, errGhost):
			s.unpin(ctx)
		default:
			s.trouble.set(err)
			if failures++; failures > 1 { // the first time there may just be something to find out
				sleep(ctx, s.pause(failures-1))
			}
		}
	}
}

// Reasons to begin a new round that are nobody's trouble.
var (
	errCut       = errors.New("the connection was cut")
	errLookAgain = errors.New("what is awaited does not come")
	errGhost     = errors.New("a message went to a request of this relay whose connection is gone, which the server does not know")
)

// pause draws how long to wait after so many failures in a row.
func (s *JetStream) pause(failures int) time.Duration {
	ceiling := min(s.times.retryMin<<min(failures, 16), s.times.retryMax)
	return ceiling/2 + rand.N(ceiling/2+1)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// round receives until something happens that makes the consumer worth a look. The error says what; received, whether there were messages.
func (s *JetStream) round(ctx context.Context) (received bool, err error) {
	if err := s.conn.WaitConnected(ctx); err != nil {
		return false, err
	}
	epoch, ok := s.conn.Epoch()
	if !ok {
		return false, errCut
	}
	received, err = s.roundIn(ctx, epoch)
	select {
	case <-epoch.Done():
		err = errCut // whatever else it has led to
	default:
	}
	return received, err
}

func (s *JetStream) roundIn(ctx context.Context, epoch natsconn.Epoch) (received bool, err error) {
	b, err := s.bind(ctx, epoch.Conn())
	if err != nil {
		return false, err
	}
	s.acks.use(b.nc)
	alone, err := s.recall(ctx, b)
	if err != nil {
		return false, err
	}
	p, err := newPull(s, b, alone)
	if err != nil {
		return false, err
	}
	defer func() {
		p.close()
		if ctx.Err() == nil { // on a stop it lasts: the route may still deliver what it has
			s.lease.Store(nil)
		}
	}()
	err = p.run(ctx, epoch.Done())
	if p.asked.After(s.asked) {
		s.asked = p.asked
	}
	s.doubtful = !p.received()
	return p.received(), err
}

// denied hears of errors of the connection: what the server does not permit comes this way alone.
func (s *JetStream) denied(err error) {
	if v, ok := errors.AsType[*natsconn.PermissionError](err); ok {
		if v.Publish && !strings.HasPrefix(v.Subject, "$JS.") {
			return
		}
		s.trouble.set(&relay.Fault{Err: v, Blocked: true})
	}
}

// blocked is an error that somebody has to mend.
func blocked(format string, args ...any) error {
	return &relay.Fault{Err: fmt.Errorf(format, args...), Blocked: true}
}

// apiError says what a failed request to the JetStream API means.
func apiError(what string, err error) error {
	fault := &relay.Fault{Err: fmt.Errorf("%s: %w", what, err)}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) {
		fault.Err = fmt.Errorf("%s: no answer from JetStream (it is starting, has no quorum, or this account has none): %w", what, err)
	}
	if e, ok := errors.AsType[jetstream.JetStreamError](err); ok && e.APIError() != nil && e.APIError().Code/100 == 4 {
		fault.Blocked = true
	}
	return fault
}
