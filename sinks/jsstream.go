package sinks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/subject"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

// A targetStream is what is known of the stream to publish to. It is looked at once in each epoch, and again after each failure.
type targetStream struct {
	turn    chan struct{} // holds one token while a lane looks
	doubted atomic.Bool

	mu    sync.Mutex
	epoch natsconn.Epoch
	state *streamState // nil: not seen yet

	told map[string]bool // warnings that were logged; belongs to who has the turn
}

// A streamState is how a stream was found.
type streamState struct {
	info *streamInfo
	fast atomic.Bool // it takes fast ingest
}

func newTargetStream() targetStream {
	return targetStream{turn: make(chan struct{}, 1), told: make(map[string]bool)}
}

// doubt makes the next attempt look at the stream again.
func (t *targetStream) doubt() { t.doubted.Store(true) }

func (t *targetStream) known(epoch natsconn.Epoch) *streamState {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch != epoch || t.doubted.Load() {
		return nil
	}
	return t.state
}

// lookAt returns the stream as it was found in this epoch, and finds it if need be. An error says what keeps it from being published to.
func (s *JetStream) lookAt(ctx context.Context, epoch natsconn.Epoch) (*streamState, error) {
	t := &s.target
	if state := t.known(epoch); state != nil {
		return state, nil
	}
	ctx, stop := untilCut(ctx, epoch)
	defer stop()
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, becauseCut(ctx, ctx.Err())
	}
	defer func() { <-t.turn }()
	if state := t.known(epoch); state != nil {
		return state, nil
	}
	t.doubted.Store(false)
	info, err := s.findStream(ctx, epoch)
	if err == nil {
		err = s.unusable(&info.Config)
	}
	if err != nil {
		t.doubt()
		return nil, fmt.Errorf("stream %q: %w", s.js.Stream, becauseCut(ctx, err))
	}
	state := &streamState{info: info}
	state.fast.Store(s.js.BatchPublish == "auto" && info.Config.AllowBatched)
	s.warn(&info.Config)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.epoch, t.state = epoch, state
	return state, nil
}

// findStream asks for the stream, and creates it if it is not there and the configuration says how.
func (s *JetStream) findStream(ctx context.Context, epoch natsconn.Epoch) (*streamInfo, error) {
	nc := epoch.Conn()
	info, err := streamAPI(ctx, s.conn, nc, "STREAM.INFO", s.js.Stream, nil)
	if e, ok := errors.AsType[*apiError](err); ok && e.ErrCode == errStreamNotFound && s.js.Create != nil {
		info, err = streamAPI(ctx, s.conn, nc, "STREAM.CREATE", s.js.Stream, newStream(s.js, nc.ConnectedServerVersion()))
		if err == nil {
			s.opts.Log.Info().Str("stream", s.js.Stream).Strs("subjects", info.Config.Subjects).Msg("stream created")
		}
	}
	return info, streamTrouble(err)
}

const errStreamNotFound = 10059

// streamTrouble adds to an error of the API what to do about it.
func streamTrouble(err error) error {
	e, isAPI := errors.AsType[*apiError](err)
	switch {
	case err == nil:
		return nil
	case isAPI && e.ErrCode == errStreamNotFound:
		return &relay.Fault{Err: errMissing, Blocked: true, Code: e.Code}
	case isAPI && e.Code >= 400 && e.Code < 500:
		return &relay.Fault{Err: err, Blocked: true, Code: e.Code}
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("JetStream does not answer; is it enabled, for this account, in this domain? %w", err)
	}
	return err
}

var errMissing = errors.New("it does not exist; create it, or let the relay do so with create_stream")

func blocked(format string, args ...any) error {
	return &relay.Fault{Err: fmt.Errorf(format, args...), Blocked: true}
}

// unusable says why the stream cannot be published to, whatever is tried.
func (s *JetStream) unusable(c *streamConfig) error {
	switch {
	case c.Sealed:
		return blocked("it is sealed")
	case len(c.Mirror) > 0 && string(c.Mirror) != "null":
		return blocked("it is a mirror, which takes no messages but its origin's")
	case c.NoAck:
		return blocked("it acknowledges nothing (no_ack), so that no message would ever count as delivered")
	case s.js.ExactlyOnce && c.Retention != "" && c.Retention != "limits":
		return blocked("exactly_once looks up what the stream holds, and one with retention %q forgets what was consumed; use retention limits, or exactly_once = false", c.Retention)
	}
	if subject := s.unheard.Load(); subject != nil {
		s.unheard.Store(nil)
		if !takes(c.Subjects, *subject) {
			return blocked("it does not take subject %q, and no other stream does; its subjects are %q", *subject, c.Subjects)
		}
	}
	return nil
}

// warn logs what will bite later.
func (s *JetStream) warn(c *streamConfig) {
	if s.dedupe && !s.js.ExactlyOnce && c.DuplicateWindow > 0 && c.DuplicateWindow < 2*s.opts.RetryMax {
		s.tell("the stream remembers ids for %v only (duplicate_window), and delivery.retry.max is %v: what is sent again after an outage may be stored twice; raise the first, lower the second, or use exactly_once",
			c.DuplicateWindow, s.opts.RetryMax)
	}
}

// tell logs a warning once.
func (s *JetStream) tell(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !s.target.told[text] {
		s.target.told[text] = true
		s.opts.Log.Warn().Str("stream", s.js.Stream).Msg(text)
	}
}

// takes reports whether one of the patterns matches the subject, or all that it matches if it is a pattern, too.
func takes(patterns []string, wanted string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return subject.Covers(p, wanted) })
}

// newStream is the stream as create_stream describes it. Fast ingest is switched on where the server has it.
func newStream(js *config.JetStreamSink, server string) *streamConfig {
	c := js.Create
	return &streamConfig{
		Name: js.Stream, Subjects: c.Subjects, Retention: c.Retention, Discard: c.Discard, Storage: c.Storage, Replicas: c.Replicas,
		MaxMsgs: orUnlimited(c.MaxMessages), MaxBytes: orUnlimited(c.MaxBytes), MaxAge: c.MaxAge, DuplicateWindow: c.DuplicateWindow,
		Compression: c.Compression, AllowDirect: true, AllowBatched: js.BatchPublish == "auto" && hasFastIngest(server),
	}
}

// orUnlimited returns a limit as the API has it, where -1 is none.
func orUnlimited(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

// hasFastIngest reports whether a nats-server of this version has fast ingest: 2.14 and later.
func hasFastIngest(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (major > 2 || major == 2 && minor >= 14)
}
