package sinks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

// Limits of a JetStream sink: what a lane may have under way. A stream that is busy acknowledges in lumps of what waits for it (nats-server answers when it
// has stored all that had come in), so that a lane has to be a lump or two ahead; and on a line with a round trip of 50 ms, 4096 messages
// are 80,000 a second. The bytes, half of which are the messages on the wire if these are small, are what a cut costs on a slow line: they are sent again.
const (
	jsMessages = 4096
	jsBytes    = 2 << 20
	jsLanes    = 4
)

// jsExchange is how many messages are published, without fast ingest, before all of them are waited for. By default a route from a JetStream source has 4096
// messages under way (max_ack_pending): with as many in one exchange, the source would have nothing to fetch meanwhile.
const jsExchange = 1024

// JetStream publishes to a stream. It is safe for concurrent use: all lanes share one connection.
//
// A message counts as delivered when the stream has acknowledged it, a duplicate of one that it has included. Order is kept
// through cuts and changes of the stream's leader: see ingest and publishChained.
type JetStream struct {
	natsEndpoint
	js     *config.JetStreamSink
	dedupe bool
	opts   JetStreamOptions
	wait   time.Duration // natsPatience

	pinWait  time.Duration // pinPatience
	inFlight atomic.Int64  // bytes published and not answered
	target   targetStream
	sending  sync.Mutex             // held while a lane publishes: what it sends is not mixed with another's
	chained  atomic.Int32           // most messages in a chain: see publishChained
	resume   *resumption            // nil unless exactly_once
	unheard  atomic.Pointer[string] // a subject that nobody took when it was last published to

	// A Deliver that has failed may have left messages on their way into the stream. Until an acknowledgement of a message that was
	// published after the last failure, it is not known what the stream has: whatever its leader got earlier is then stored, or lost.
	failures atomic.Uint64 // Delivers that have failed, counted from 1: an earlier process may have left something, too
	sure     atomic.Uint64 // the count at the beginning of the newest Deliver that was acknowledged

	lanes lanes[*jsLane]

	midBatch func(i int) // tests: called before message i is published
}

// JetStreamOptions are what a JetStream sink needs to know of its route.
type JetStreamOptions struct {
	Ordering relay.Ordering
	RetryMax time.Duration // the longest pause between attempts
	Standby  string        // the durable that others share with it, one of which may deliver in this one's stead; "": there are none
	Pin      func() string // with Standby: "" while this relay is not surely the active one, else what does not change for as long as it is
	Via      string        // the route's entry in relay.HeaderVia
	Domain   string        // JetStream domain of the source, "" if it has none
	Log      zerolog.Logger
}

// NewJetStream returns a sink on conn, which must not be the connection of a source. The caller closes conn
// after the sink.
func NewJetStream(conn *natsconn.Conn, cfg *config.NATSSink, opts JetStreamOptions) *JetStream {
	s := &JetStream{
		natsEndpoint: natsEndpoint{conn: conn, name: cfg.NATS},
		js:           cfg.JetStream, dedupe: cfg.Dedupe, opts: opts, wait: natsPatience, pinWait: pinPatience,
		target: newTargetStream(),
	}
	s.failures.Store(1)
	s.chained.Store(jsExchange)
	if s.js.ExactlyOnce {
		s.resume = new(resumption)
	}
	return s
}

// Limits implements relay.Sink.
func (s *JetStream) Limits() relay.Limits {
	return relay.Limits{Messages: jsMessages, Bytes: jsBytes, Lanes: jsLanes}
}

// Close implements relay.Sink. Every batch has been settled by then.
func (s *JetStream) Close(context.Context) error {
	for _, l := range s.lanes.drain() {
		l.close()
	}
	return nil
}

// Deliver implements relay.Sink.
func (s *JetStream) Deliver(ctx context.Context, batch []*relay.Message, out []relay.Outcome) error {
	return s.Stream(ctx, &relay.Batch{Messages: batch, Outcomes: out})
}

// Stream implements relay.Streamer.
func (s *JetStream) Stream(ctx context.Context, batch *relay.Batch) error {
	err := s.deliver(ctx, batch)
	s.noteResult(ctx, err)
	if err == nil {
		return nil
	}
	s.failures.Add(1)
	s.target.doubt()
	fault := &relay.Fault{Err: fmt.Errorf("nats %q: %w", s.name, err)}
	fault.Blocked = isBlocking(err)
	return fault
}

func (s *JetStream) deliver(ctx context.Context, batch *relay.Batch) error {
	failures := s.failures.Load()
	epoch, err := s.epoch(ctx)
	if err != nil {
		return err
	}
	stream, err := s.lookAt(ctx, epoch)
	if err != nil {
		return err
	}
	l := s.lanes.take(func() *jsLane { return newJSLane(s) })
	defer func() {
		l.msg.forget()
		s.lanes.put(l)
	}()
	if err := l.attach(epoch); err != nil {
		return err
	}
	l.msg.target = &stream.info.Config
	a := &attempt{Batch: batch, ctx: ctx, epoch: epoch, failures: failures}
	if s.resume != nil {
		return s.publishOnce(l, a, stream)
	}
	s.admit(a)
	return l.publish(a, stream)
}

// publish sends the batch in the way that fits the stream.
func (l *jsLane) publish(a *attempt, stream *streamState) error {
	for a.unsettled() {
		if err := l.sink.mayPublish(a); err != nil {
			return err
		}
		err := l.publishNext(a, stream)
		if errors.Is(err, errFastNotOn) {
			stream.fast.Store(false)
			l.sink.opts.Log.Warn().Err(err).Msg("publishing without fast ingest")
			continue
		}
		if err != nil {
			return err
		}
		a.Settle()
	}
	return nil
}

// publishNext publishes the next messages of the batch, and settles what the stream has taken. It settles one message at least, or fails.
func (l *jsLane) publishNext(a *attempt, stream *streamState) error {
	switch {
	case stream.fast.Load() && !l.sink.unsure():
		return l.ingest(a)
	case l.sink.opts.Ordering == relay.OrderNone:
		return l.publishAll(a)
	case l.sink.dedupe && stream.info.Config.Replicas == 1:
		return l.publishChained(a)
	}
	return l.publishSpaced(a)
}

// settle notes what an answer says of the message in that place. The error is what is wrong with the stream, not the message.
func (l *jsLane) settle(a *attempt, place int, answer *ack) error {
	s, m, out := l.sink, a.Messages[place], &a.Outcomes[place]
	switch answer.kind {
	case ackStored:
		out.Status = relay.Delivered
		if !answer.duplicate {
			s.makeSure(a.failures)
		}
		if s.resume != nil {
			s.resume.noteStored(s.origin(m), answer.seq)
		}
	case ackError:
		switch judge(answer.err) {
		case verdictRefused:
			*out = relay.Outcome{Status: relay.Refused, Err: answer.err, Code: answer.err.Code}
		case verdictNobody:
			s.unheard.Store(&m.Subject)
			return answer.err
		case verdictBlocked:
			return &relay.Fault{Err: answer.err, Blocked: true, Code: answer.err.Code}
		default:
			return answer.err
		}
	}
	return nil
}

func isBlocking(err error) bool {
	fault, ok := errors.AsType[*relay.Fault](err)
	_, denied := errors.AsType[*natsconn.PermissionError](err)
	return ok && fault.Blocked || denied || errors.Is(err, errNATSHeaders)
}

// unsure reports whether messages may be on their way into the stream.
func (s *JetStream) unsure() bool { return s.sure.Load() < s.failures.Load() }

// makeSure notes that a message was acknowledged that was published after so many failures.
func (s *JetStream) makeSure(failures uint64) {
	for {
		sure := s.sure.Load()
		if sure >= failures || s.sure.CompareAndSwap(sure, failures) {
			return
		}
	}
}

// patience is how long nothing may be heard before an attempt is given up: see natsPatience.
func (s *JetStream) patience() time.Duration {
	return s.wait + time.Duration(s.inFlight.Load()/natsSlowestBytes)*time.Second
}

// silence finds out who it is that does not answer, and ends a connection that is dead.
func (s *JetStream) silence(ctx context.Context, epoch natsconn.Epoch) error {
	flushCtx, cancel := context.WithTimeout(ctx, s.patience())
	defer cancel()
	switch err := epoch.Conn().FlushWithContext(flushCtx); {
	case err == nil:
		return errNoAck
	case ctx.Err() != nil:
		return ctx.Err()
	case flushCtx.Err() == nil:
		return errNATSCut
	}
	epoch.Cut() // nats.go goes on with a connection whose flush has timed out
	return errNATSNoPong
}
