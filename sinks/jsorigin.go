package sinks

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

// HeaderOrigin says where a message comes from: "STREAM SEQUENCE TIME", the stream with its domain as DOMAIN/STREAM, the time in
// nanoseconds since 1970. Only messages of routes with exactly_once have it. Relays that stand by for each other add the durable that they share: by
// that they know each other's messages, for in HeaderVia each has a name of its own.
const HeaderOrigin = "Natsrelay-Origin"

// An origin is a message's place in the stream that it comes from.
type origin struct {
	stream   string
	sequence uint64
	time     int64
}

func (o origin) String() string {
	b := append([]byte(o.stream), ' ')
	b = append(strconv.AppendUint(b, o.sequence, 10), ' ')
	return string(strconv.AppendInt(b, o.time, 10))
}

// parseOrigin reads a value of HeaderOrigin; durable is "" if none is given.
func parseOrigin(s string) (o origin, durable string, ok bool) {
	stream, rest, _ := strings.Cut(s, " ")
	sequence, rest, _ := strings.Cut(rest, " ")
	nanos, durable, _ := strings.Cut(rest, " ")
	seq, err1 := strconv.ParseUint(sequence, 10, 64)
	at, err2 := strconv.ParseInt(nanos, 10, 64)
	return origin{stream, seq, at}, durable, stream != "" && err1 == nil && err2 == nil
}

// covers reports whether a stream that holds o holds what comes from p, too: o is of the same stream and not before p. The time tells
// a stream from its namesake that was made later, and counts from 1 again. What comes from no stream is never covered.
func (o origin) covers(p origin) bool {
	return o.stream != "" && o.stream == p.stream && o.sequence >= p.sequence && o.time >= p.time
}

// behind returns o with a time that is not before last's, if it comes behind that in the same stream. The leaders of a stream take the times each from
// a clock of its own, so that by itself a message may be older than the one before.
func (o origin) behind(last origin) origin {
	if o.stream == last.stream && o.sequence > last.sequence {
		o.time = max(o.time, last.time)
	}
	return o
}

// A resumption is what is known of a route's messages in the target stream, with exactly_once. The route is strict: one lane.
type resumption struct {
	created time.Time // of the target stream
	stream  string    // whose messages were looked for, "": whatever the route had sent
	seen    uint64    // the stream's messages up to here have been looked at, or are our own
	last    origin    // the newest of this route up to there; zero: none
	sent    origin    // as which the last message was sent
	pin     string    // by which this relay was the active one of its standby group when the stream was looked at; "": it was not, or there is none
}

// origin returns where a message comes from; zero for one that is from no stream, or is behind others of its stream that the target may have got
// before it, as a dead letter is that was put back into its route, or what the source got out of order: what the target holds says nothing of that.
func (s *JetStream) origin(m *relay.Message) origin {
	stream := m.Stream
	if stream == "" || m.Late {
		return origin{}
	}
	if s.opts.Domain != "" {
		stream = s.opts.Domain + "/" + stream
	}
	return origin{stream, m.Sequence, m.Time.UnixNano()}
}

// provenance returns the value of HeaderOrigin to send with a message, "" for none.
func (s *JetStream) provenance(m *relay.Message) string {
	if s.resume == nil {
		return ""
	}
	o := s.origin(m).behind(s.resume.last).behind(s.resume.sent)
	if o.stream == "" {
		return ""
	}
	s.resume.sent = o
	if s.opts.Standby != "" {
		return o.String() + " " + s.opts.Standby
	}
	return o.String()
}

// noteStored notes that the target has a message, in this place.
func (r *resumption) noteStored(o origin, seq uint64) {
	r.seen = max(r.seen, seq)
	if o.stream != "" && !r.last.covers(o) {
		r.last = o.behind(r.last)
	}
}

// publishOnce publishes the messages of the batch that the target does not hold.
//
// A route is strict, so that the target holds all that comes before the newest of its messages there. That one is looked up whenever
// messages may have got there that nobody has acknowledged to us: at the start, and after each failure. What of them is still on its way then
// is known to the stream by its id, for the time of the duplicate_window.
//
// Messages come repeatedly, too, without any failure here: after a restart, from the relay's disk, and then from the source, which
// never got an acknowledgement. Where a batch begins to repeat itself it is parted, and what repeats is looked at once the first part is stored.
func (s *JetStream) publishOnce(l *jsLane, a *attempt, stream *streamState) error {
	r := s.resume
	pin := s.activePin(a.ctx)
	if from := s.comesFrom(a); s.unsure() || pin != r.pin || from != r.stream {
		if err := s.catchUp(a.ctx, a.epoch, from, a.Messages[0].Time); err != nil {
			return fmt.Errorf("look up what stream %q holds of this route: %w", s.js.Stream, err)
		}
		r.pin = pin
	}
	for a.upTo < len(a.Messages) {
		s.admit(a)
		if err := l.publish(a, stream); err != nil {
			return err
		}
		a.newest = origin{}
	}
	return nil
}

// pinPatience is how long a relay may take to be sure that it is the active one: one that has become it waits for 6 s, until the one before knows.
const pinPatience = 7 * time.Second

// activePin waits until this relay is the active one of its standby group, for a while, and returns by what; "": it is not, or there is none.
func (s *JetStream) activePin(ctx context.Context) string {
	if s.opts.Standby == "" {
		return ""
	}
	for end := time.Now().Add(s.pinWait); ; {
		if pin := s.opts.Pin(); pin != "" || time.Now().After(end) || ctx.Err() != nil {
			return pin
		}
		select {
		case <-time.After(s.pinWait / 100):
		case <-ctx.Done():
		}
	}
}

var errStandby = errors.New("this relay is not surely the active one of its standby group, and the target does not hold the messages yet: the active one delivers them, too")

// mayPublish returns an error if another relay of the standby group may be publishing the messages: then two would be at it at a time.
func (s *JetStream) mayPublish(a *attempt) error {
	if s.resume == nil || s.opts.Standby == "" || s.resume.pin != "" && s.opts.Pin() == s.resume.pin {
		return nil
	}
	for i, m := range a.Messages[:a.upTo] {
		if a.Outcomes[i].Status == relay.Unconfirmed && s.origin(m).stream != "" {
			return errStandby
		}
	}
	return nil
}

// comesFrom returns the stream that the batch comes from, or the last one before, if none of its messages says.
func (s *JetStream) comesFrom(a *attempt) string {
	for _, m := range a.Messages {
		if o := s.origin(m); o.stream != "" {
			return o.stream
		}
	}
	return s.resume.stream
}

// admit lets those messages of the batch be published that have not been, up to where it begins to repeat itself. It settles those that the target holds.
func (s *JetStream) admit(a *attempt) {
	if s.resume == nil {
		a.upTo = len(a.Messages)
		return
	}
	s.skipStored(a)
	a.upTo = s.ascending(a)
}

// skipStored settles the messages that the target holds.
func (s *JetStream) skipStored(a *attempt) {
	skipped := 0
	for i := a.upTo; i < len(a.Messages); i++ {
		if a.Outcomes[i].Status == relay.Unconfirmed && s.resume.last.covers(s.origin(a.Messages[i])) {
			a.Outcomes[i].Status = relay.Delivered
			skipped++
		}
	}
	if skipped > 0 {
		s.opts.Log.Info().Int("messages", skipped).Str("stream", s.js.Stream).Stringer("up_to", s.resume.last).Msg("the target holds them already, not sending them again")
	}
}

// ascending returns the place of the first message that is the same as one before, or from before it.
func (s *JetStream) ascending(a *attempt) int {
	for i := a.upTo; i < len(a.Messages); i++ {
		o := s.origin(a.Messages[i])
		if o.stream == "" || s.resume.last.covers(o) {
			continue
		}
		if a.newest.covers(o) {
			return i
		}
		a.newest = o.behind(a.newest)
	}
	return len(a.Messages)
}

// catchUp looks at what the target has got since it was last looked at. before is when the oldest message that is asked for was stored
// at its origin.
func (s *JetStream) catchUp(ctx context.Context, epoch natsconn.Epoch, stream string, before time.Time) error {
	r := s.resume
	ctx, stop := untilCut(ctx, epoch)
	defer stop()
	nc := epoch.Conn()
	info, err := streamAPI(ctx, s.conn, nc, "STREAM.INFO", s.js.Stream, nil)
	if err != nil {
		return streamTrouble(becauseCut(ctx, err))
	}
	if !info.Created.Equal(r.created) || info.State.LastSeq < r.seen || stream != r.stream {
		*r = resumption{created: info.Created, stream: stream}
	}
	scan := &originScan{sink: s, nc: nc, stream: stream}
	found, ok, err := scan.newest(ctx, max(r.seen+1, info.State.FirstSeq), info.State.LastSeq, before.Add(-clockSkew))
	if err != nil {
		return becauseCut(ctx, err)
	}
	if ok {
		r.last, r.stream = found, found.stream
	}
	r.seen = info.State.LastSeq
	return nil
}

// clockSkew is how far the clocks of two clusters may be apart: a target that got a message so long before its origin
// stored it does not have it.
const clockSkew = time.Hour

// An originScan looks for a route's messages of one origin in the target stream, headers only.
type originScan struct {
	sink   *JetStream
	nc     *nats.Conn
	stream string // of the origin, "": any
}

// firstChunk is how many messages are looked at first, from the end of the stream; each further chunk is 8 times as long.
const firstChunk = 256

// newest returns the newest of the route's messages between two sequences. Others may write to the stream as well, and far more, so it
// looks from the end, until it finds one or comes to messages older than notBefore.
func (s *originScan) newest(ctx context.Context, from, to uint64, notBefore time.Time) (found origin, ok bool, err error) {
	for size := uint64(firstChunk); from <= to; size *= 8 {
		start := from
		if to-from >= size {
			start = to - size + 1
		}
		var oldest time.Time
		if found, ok, oldest, err = s.chunk(ctx, start, to); err != nil || ok {
			return found, ok, err
		}
		if start == from || !oldest.IsZero() && oldest.Before(notBefore) {
			return origin{}, false, nil
		}
		to = start - 1
	}
	return origin{}, false, nil
}

// chunk returns the newest of the route's messages between two sequences, and when the first message there was stored.
func (s *originScan) chunk(ctx context.Context, from, to uint64) (found origin, ok bool, oldest time.Time, err error) {
	js, err := s.sink.conn.JetStream(s.nc)
	if err != nil {
		return origin{}, false, oldest, err
	}
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	ctx, stop := s.sink.conn.UntilDenied(ctx, "$JS.")
	defer stop()
	c, err := js.CreateConsumer(ctx, s.sink.js.Stream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from, AckPolicy: jetstream.AckNonePolicy,
		HeadersOnly: true, MemoryStorage: true, Replicas: 1, InactiveThreshold: scanTimeout,
	})
	if err != nil {
		return origin{}, false, oldest, fmt.Errorf("create a consumer to read it: %w", natsconn.BecauseDenied(ctx, err))
	}
	defer func() { // a consumer that stays behind goes by itself
		drop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = js.DeleteConsumer(drop, s.sink.js.Stream, c.CachedInfo().Name)
	}()
	for pending, at := c.CachedInfo().NumPending, from; pending > 0 && at <= to; {
		batch, err := c.Fetch(int(min(1024, to-at+1)), jetstream.FetchContext(ctx))
		if err != nil {
			return origin{}, false, oldest, err
		}
		n := 0
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return origin{}, false, oldest, err
			}
			n++
			pending, at = meta.NumPending, meta.Sequence.Stream+1
			if oldest.IsZero() {
				oldest = meta.Timestamp
			}
			if o, mine := s.mine(m.Headers()); mine && meta.Sequence.Stream <= to {
				found, ok = o, true
			}
		}
		if err := errors.Join(batch.Error(), ctx.Err()); err != nil || n == 0 {
			return origin{}, false, oldest, fmt.Errorf("read it from sequence %d on: %w", at, errors.Join(err, errCutShort))
		}
	}
	return found, ok, oldest, nil
}

// scanTimeout bounds one chunk.
const scanTimeout = time.Minute

var errCutShort = errors.New("it ended before its time")

// mine returns the origin of one of this route's messages, or of one that stands by for it.
func (s *originScan) mine(h nats.Header) (origin, bool) {
	via, origins := h[relay.HeaderVia], h[HeaderOrigin]
	if len(via) == 0 || len(origins) == 0 {
		return origin{}, false
	}
	o, durable, ok := parseOrigin(origins[len(origins)-1])
	ours := via[len(via)-1] == s.sink.opts.Via || durable != "" && durable == s.sink.opts.Standby
	return o, ok && ours && (s.stream == "" || o.stream == s.stream)
}
