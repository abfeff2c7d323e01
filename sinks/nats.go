package sinks

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

// Limits of a NATS sink, measured with BenchmarkNATSDeliver (its comment has the figures).
const (
	natsMessages = 1024
	natsBytes    = 1 << 20
	natsLanes    = 4
)

// How long a batch waits for its PONG: as long as its bytes and those before it need on the slowest line that
// is still served, and a little more. A fixed timeout would cut a slow line again and again, and
// never get anything across.
const (
	natsPatience     = 5 * time.Second
	natsSlowestBytes = 64 << 10 // a second
)

// NATS publishes to core NATS subjects. It is safe for concurrent use: all lanes share one connection.
//
// A batch is confirmed by a PONG that follows it on the same connection: the connection's epoch is
// read before the first publish and after the flush, and if it moved, nothing of the batch counts.
// A PONG says that the server has read the messages, not that anybody subscribes to them.
type NATS struct {
	natsEndpoint
	dedupe bool
	wait   time.Duration // natsPatience

	inFlight atomic.Int64 // bytes published and not confirmed
	denies   atomic.Bool  // the server did not permit all that was published last

	lanes lanes[*natsLane]

	midBatch func(i int) // tests: called before message i is published
}

// NewNATS returns a sink on conn, which must not be the connection of a source. The caller closes conn
// after the sink.
func NewNATS(conn *natsconn.Conn, cfg *config.NATSSink) *NATS {
	return &NATS{natsEndpoint: natsEndpoint{conn: conn, name: cfg.NATS}, dedupe: cfg.Dedupe, wait: natsPatience}
}

// Limits implements relay.Sink.
func (s *NATS) Limits() relay.Limits {
	return relay.Limits{Messages: natsMessages, Bytes: natsBytes, Lanes: natsLanes}
}

// Close implements relay.Sink. Every batch has been settled by then: there is nothing to flush.
func (s *NATS) Close(context.Context) error {
	for _, l := range s.lanes.drain() {
		l.watch.Close()
	}
	return nil
}

// Deliver implements relay.Sink.
func (s *NATS) Deliver(ctx context.Context, batch []*relay.Message, out []relay.Outcome) error {
	err := s.deliver(ctx, batch, out)
	s.noteResult(ctx, err)
	if err == nil {
		s.denies.Store(false)
		return nil
	}
	denied := errors.Is(err, nats.ErrPermissionViolation)
	if denied {
		s.denies.Store(true)
	}
	return &relay.Fault{Err: fmt.Errorf("nats %q: %w", s.name, err), Blocked: denied || errors.Is(err, errNATSHeaders)}
}

func (s *NATS) deliver(ctx context.Context, batch []*relay.Message, out []relay.Outcome) error {
	epoch, err := s.epoch(ctx)
	if err != nil {
		return err
	}
	l := s.lanes.take(func() *natsLane { return newNATSLane(s) })
	defer func() {
		l.msg.forget()
		s.lanes.put(l)
	}()
	if s.denies.Load() && len(batch) > 1 { // somebody may permit it in the middle of the batch: what comes later would be there before what was denied
		if err := s.publish(ctx, l, epoch, batch[:1], out[:1]); err != nil {
			return err
		}
		batch, out = batch[1:], out[1:]
	}
	return s.publish(ctx, l, epoch, batch, out)
}

// publish publishes the messages and settles what the server has read and permitted.
func (s *NATS) publish(ctx context.Context, l *natsLane, epoch natsconn.Epoch, batch []*relay.Message, out []relay.Outcome) error {
	l.watch.Begin(epoch)
	defer l.watch.Stop()
	bytes, err := l.publish(epoch, batch, out)
	defer s.inFlight.Add(-bytes)
	if err != nil {
		return err
	}
	if bytes > 0 {
		if err := s.confirm(ctx, epoch); err != nil {
			return err
		}
	}
	denied, err := s.denied(ctx, l)
	if err != nil {
		return err
	}
	return settle(batch, out, denied)
}

// confirm waits for the PONG that follows what was published in the epoch.
func (s *NATS) confirm(ctx context.Context, epoch natsconn.Epoch) error {
	patience := s.wait + time.Duration(s.inFlight.Load()/natsSlowestBytes)*time.Second
	flushCtx, cancel := context.WithTimeoutCause(ctx, patience, errNATSNoPong)
	defer cancel()
	if err := epoch.Conn().FlushWithContext(flushCtx); err != nil {
		if flushCtx.Err() == nil {
			return errNATSCut // the cut itself is in natsconn's log, with its cause
		}
		if cause := context.Cause(flushCtx); !errors.Is(cause, errNATSNoPong) {
			return cause
		}
		epoch.Cut() // nats.go goes on with a connection whose flush has timed out
		return fmt.Errorf("%w (waited %v)", errNATSNoPong, patience)
	}
	if now, up := s.conn.Epoch(); !up || now != epoch {
		return errNATSCut
	}
	return nil
}

// denied returns the subjects of the lane's batch that the server has not permitted.
func (s *NATS) denied(ctx context.Context, l *natsLane) (map[string]error, error) {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	denied, err := l.watch.Denied(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for the connection's errors: %w", err)
	}
	return denied, nil
}

// settle marks what the server has read and did not deny. What was denied is sent again, until somebody
// has changed the permissions; the rest of the batch is not, and subscribers see no duplicates of it.
func settle(batch []*relay.Message, out []relay.Outcome, denied map[string]error) error {
	var blocked error
	for i, m := range batch {
		if out[i].Status != relay.Unconfirmed {
			continue
		}
		err := denied[m.Subject]
		if err == nil {
			err = denied[""] // a violation that did not name its subject
		}
		if err == nil {
			out[i].Status = relay.Delivered
		} else if blocked == nil {
			blocked = err
		}
	}
	return blocked
}
