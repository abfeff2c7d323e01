package sources

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

// JetStream is a source of one stream: a durable pull consumer.
//
// Run works in rounds (jetstream_round.go): each looks the consumer up (jetstream_bind.go), asks it for what it has handed out to somebody who is
// gone (jetstream_recall.go), unless others work with it (jetstream_alone.go, jetstream_standby.go), and pulls (jetstream_pull.go) until something happens to the connection, the
// consumer or the stream. Three goroutines live beside the round:
//
//	nats.go's callback ─► ledger ─► pump ─► accept
//	                        ▲                  │ … the route settles the receipt
//	     consumer ◄─ acker ─┴──────────────────┘
//
// The callback never waits, so whatever nats.go has is in the ledger, and the acker extends it for as long as it is held, however long accept takes.
// The acker outlives Run, for the route settles what it holds after Run has returned. It ends in Close.
//
// The source asks for messages with requests of its own, instead of nats.go's Consume. That takes a message with an empty body and a header Status for
// the server's word on the pull: such a message ends the pull, or is never delivered. Here the two are told apart by what only a consumer's
// messages have, a reply subject to acknowledge them at.
type JetStream struct {
	conn    *natsconn.Conn
	cfg     *config.JetStreamSource
	log     zerolog.Logger
	ordered bool
	times   times

	ledger *ledger
	acks   *acker

	// Owned by Run's goroutine, and by Close after it.
	mark     *mark
	bound    *binding
	pin      string    // id of this relay in the standby group while it is the active one
	pinSince time.Time // when it became that, or ceased to be it
	asked    time.Time // when requests were last sent that may still be under way
	waiting  time.Time // since when what is awaited has been asked for in vain; zero: it is not
	doubtful bool      // the last pull has brought nothing, not even a heartbeat: looking the consumer up may not be all that it takes

	lease   atomic.Pointer[lease] // while this relay is the active one of its standby group
	trouble trouble
	pending atomic.Int64 // messages of the consumer that nobody has been given yet; -1: unknown
	strange atomic.Uint64
	reused  atomic.Int64 // position.Reused, in nanoseconds since 1970; 0: never
}

// times are the source's delays; tests make them shorter.
type times struct {
	request   time.Duration // for an answer of the JetStream API
	expires   time.Duration // of a pull request
	heartbeat time.Duration // of a pull request that brings nothing
	look      time.Duration // between looks at the consumer
	retryMin  time.Duration // between rounds that fail
	retryMax  time.Duration
	pinned    time.Duration // after which a silent relay loses its place to another one of its standby group
	shared    time.Duration // for which a consumer may be shared with somebody who is not to be seen
	joining   time.Duration // in which somebody who works with a consumer is to be seen
	late      time.Duration // by which the server may be late to deliver again
}

func defaultTimes() times {
	return times{
		request: 5 * time.Second, expires: 30 * time.Second, heartbeat: 5 * time.Second, look: 5 * time.Second,
		retryMin: 100 * time.Millisecond, retryMax: 5 * time.Second, pinned: 12 * time.Second, shared: time.Hour, joining: 3 * time.Second, late: 5 * time.Second,
	}
}

// NewJetStream returns a source on conn, which must not be the connection of a sink. It keeps its position in the folder dir. If ordered, the messages must
// reach the route in the order of the stream whatever happens, and wait for that.
func NewJetStream(conn *natsconn.Conn, cfg *config.JetStreamSource, dir string, ordered bool, log zerolog.Logger) (*JetStream, error) {
	log = log.With().Str("stream", cfg.Stream).Str("durable", cfg.Durable).Logger()
	m, err := openMark(dir, log)
	if err != nil {
		return nil, err
	}
	s := &JetStream{conn: conn, cfg: cfg, log: log, ordered: ordered, times: defaultTimes(), mark: m}
	s.ledger = newLedger(cfg.AckPolicy == "all", cfg.MaxAckPending, cfg.AckWait)
	if was := m.now.Stream; was != "" && was != cfg.Stream {
		log.Info().Str("was", was).Msg("the route was in another stream before: starting as deliver says")
		m.now = position{}
	}
	s.ledger.last, s.ledger.newest = m.now.Last, m.now.Newest
	if !m.now.Reused.IsZero() {
		s.reused.Store(m.now.Reused.UnixNano())
	}
	s.acks = newAcker(s.ledger, cfg.AckWait)
	s.trouble.log = log
	s.pending.Store(-1)
	return s, nil
}

// Run implements relay.Source. It calls accept from one goroutine.
func (s *JetStream) Run(ctx context.Context, accept func(*relay.Message) error) error {
	s.acks.begin()
	s.asked = time.Now() // by its predecessor, for all that is known
	defer s.conn.OnError(s.denied)()
	var pump sync.WaitGroup
	pump.Go(func() { s.pump(ctx, accept) })
	defer pump.Wait()
	s.rounds(ctx)
	s.clear(context.WithoutCancel(ctx))
	return nil
}

// clear makes the server forget the requests that are under way, whose subscription is gone: it does when it is asked for the state of the consumer. Else it would
// take the first message that is given back for one of them, and put it back behind the others.
func (s *JetStream) clear(ctx context.Context) {
	if s.bound != nil && s.conn.Stats().Connected {
		_, _ = s.lookSoon(ctx, s.bound) // without an answer, order may suffer, and that is all
	}
}

// pump passes on what the ledger's queue holds, in order, until ctx ends or the route takes no more. What it has not passed on then stays
// the source's, and is given back in Close.
func (s *JetStream) pump(ctx context.Context, accept func(*relay.Message) error) {
	var batch []*relay.Message
	for {
		if batch = s.ledger.next(ctx, batch); batch == nil {
			return
		}
		bytes := 0
		for i, m := range batch {
			size := m.Receipt.(*held).size
			if ctx.Err() != nil || accept(m) != nil {
				return
			}
			batch[i] = nil
			if bytes += size; i%64 == 63 || i == len(batch)-1 {
				s.ledger.passed(bytes)
				bytes = 0
			}
		}
	}
}

// message makes the route's message of one of the consumer's.
func (s *JetStream) message(m *nats.Msg, at place) *relay.Message {
	msg := &relay.Message{
		Subject: m.Subject, Header: relay.Header(m.Header), Data: m.Data, Time: time.Unix(0, at.time),
		Stream: s.cfg.Stream, Sequence: at.sequence,
	}
	msg.ID = s.id(msg, at.domain)
	return msg
}

// id returns what the message is known by: its own id, or its place in the stream. Where another message may have had that place before, a target may still
// know that one by it, and would take this one for a duplicate: then the time at which it was stored is added, in nanoseconds.
func (s *JetStream) id(m *relay.Message, domain string) string {
	if own := m.Header.Get(relay.HeaderMsgID); own != "" {
		return own
	}
	if d := s.conn.Domain(); d != "" {
		domain = d
	}
	if domain != "" {
		domain += ":"
	}
	id := domain + m.Stream + ":" + strconv.FormatUint(m.Sequence, 10)
	if since, stored := s.reused.Load(), m.Time.UnixNano(); since != 0 && stored > since {
		id += ":" + strconv.FormatInt(stored, 10)
	}
	return id
}

// reuse notes that the stream gives to new messages the sequences of others that it has lost. What it had stored before the newest message that was
// ever delivered keeps its id. The ledger is locked.
func (s *JetStream) reuse() {
	if newest := s.ledger.newest; !newest.IsZero() {
		s.reused.CompareAndSwap(0, newest.UnixNano())
	}
}

// Close implements relay.Source: it gives back what the route has not taken, sees to it that what was settled is known upstream, and leaves the
// standby group.
func (s *JetStream) Close(ctx context.Context) error {
	back := s.ledger.giveBackRest()
	unwritten := s.acks.stop(ctx)
	if unwritten > 0 {
		s.log.Warn().Int("acknowledgements", unwritten).Msg("some acknowledgements could not be written: their messages come again")
	}
	if back > 0 {
		s.log.Debug().Int("messages", back).Msg("gave back what the route has not taken")
	}
	err := s.farewell(ctx)
	s.noteSeen()
	s.mark.save()
	if err != nil {
		s.log.Debug().Err(err).Msg("could not take leave of the consumer")
	}
	return nil
}

// farewell sends out the last acknowledgements, and lets another relay of the group take over at once.
func (s *JetStream) farewell(ctx context.Context) error {
	if s.bound == nil || !s.conn.Stats().Connected {
		return nil
	}
	if err := s.bound.nc.FlushWithContext(ctx); err != nil {
		return err
	}
	if s.pin != "" {
		if err := s.bound.stream.UnpinConsumer(ctx, s.cfg.Durable, s.cfg.Standby); err != nil {
			return err
		}
	}
	info, err := s.look(ctx, s.bound)
	if err != nil {
		return err
	}
	s.note(info)
	return nil
}

// Trouble implements relay.Upstream.
func (s *JetStream) Trouble() error {
	conn, name := s.conn.Stats(), s.conn.Name()
	err := s.trouble.get()
	switch {
	case !conn.Connected && conn.Failure != nil:
		return fmt.Errorf("not connected to %s: %w", name, conn.Failure)
	case !conn.Connected && !errors.Is(err, relay.ErrStarting):
		return fmt.Errorf("not connected to %s: moving to another server", name)
	case err != nil:
		return fmt.Errorf("not pulling from stream %s at %s: %w", s.cfg.Stream, name, err)
	}
	return nil
}

// Pending implements relay.Upstream.
func (s *JetStream) Pending() (uint64, bool) {
	n := s.pending.Load()
	return uint64(max(n, 0)), n >= 0
}

// LostReplySubject is the reason for messages that came without the reply subject that says which of the stream they are.
const LostReplySubject = "reply_subject"

// Lost implements relay.Upstream.
func (s *JetStream) Lost() map[string]uint64 {
	return map[string]uint64{LostReplySubject: s.strange.Load()}
}
