package sources

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

// What nats.go may hold of a route before it drops the newest: over all its subscriptions, in
// equal parts. Bytes alone would not bound the memory of small messages, which cost about
// 400 bytes each beside their payload: 128 Ki of them are some 50 MiB, and a third of a second
// at 400,000 messages a second.
const (
	pendingBytes    = 32 << 20
	pendingMessages = 128 << 10
)

// Core is a source of core NATS subjects: a plain subscription or a member of a queue group.
//
// Core NATS delivers at most once. What is published while the relay is not connected never reaches
// it, and what arrives faster than the route takes it is dropped by the client beyond the
// pending limit, counted and logged. The source answers msg.Reply only if the configuration says so, and
// then only with what the route has for an answer. It takes a message with a Status header for the ordinary message that it is on a core subject.
type Core struct {
	conn *natsconn.Conn
	cfg  *config.CoreSource
	log  zerolog.Logger

	// Settings that tests make smaller.
	pendingBytes, pendingMessages int
	tick                          time.Duration
	deniedPause                   func(attempt int) time.Duration

	dropped atomic.Uint64
	stopped atomic.Uint64
	denied  atomic.Int64
	up      atomic.Bool // the server has confirmed the subscriptions, or denied them, since the source has subscribed
}

// NewCore returns a source on conn, which must not be the connection of a sink: the server cuts off
// a consumer that is too slow.
func NewCore(conn *natsconn.Conn, cfg *config.CoreSource, log zerolog.Logger) *Core {
	return &Core{
		conn: conn, cfg: cfg, log: log,
		pendingBytes: pendingBytes, pendingMessages: pendingMessages,
		tick: defaultTick, deniedPause: deniedPause,
	}
}

// CoreStats are a source's counters.
type CoreStats struct {
	Dropped uint64 // lost by the client's pending limit: the route took them too slowly
	Stopped uint64 // arrived after the route had stopped taking messages
	Denied  int    // subjects that the server does not permit at present
}

// Stats may be called at any time.
func (c *Core) Stats() CoreStats {
	return CoreStats{Dropped: c.dropped.Load(), Stopped: c.stopped.Load(), Denied: int(c.denied.Load())}
}

// Trouble implements relay.Upstream.
func (c *Core) Trouble() error {
	conn := c.conn.Stats()
	switch denied := c.denied.Load(); {
	case !conn.Connected && conn.Failure != nil:
		return fmt.Errorf("not connected to %s: %w", c.conn.Name(), conn.Failure)
	case !c.up.Load():
		return fmt.Errorf("not subscribed at %s: %w", c.conn.Name(), relay.ErrStarting)
	case !conn.Connected:
		return fmt.Errorf("not connected to %s: moving to another server", c.conn.Name())
	case denied > 0:
		return &relay.Fault{Err: fmt.Errorf("%s denies %d of %d subscriptions", c.conn.Name(), denied, len(c.cfg.Subjects)), Blocked: true}
	}
	return nil
}

// Pending implements relay.Upstream: core NATS keeps nothing.
func (c *Core) Pending() (uint64, bool) { return 0, false }

// LostSlowConsumer is the reason for messages that the client dropped because the route took them too slowly.
const LostSlowConsumer = "slow_consumer"

// Lost implements relay.Upstream.
func (c *Core) Lost() map[string]uint64 {
	return map[string]uint64{LostSlowConsumer: c.dropped.Load(), relay.DropShutdown: c.stopped.Load()}
}

// Run implements relay.Source. It calls accept from one goroutine per subject.
func (c *Core) Run(ctx context.Context, accept func(*relay.Message) error) error {
	for {
		nc, closed, err := c.conn.Attach(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("core source: %w", err)
		}
		a := newAttachment(c, nc, accept)
		err = a.run(ctx, closed)
		a.close()
		if err != nil || ctx.Err() != nil {
			return err
		}
		// nats.go has closed the connection for good: subscribe again on its successor.
	}
}

// Close implements relay.Source. Core NATS keeps nothing that would have to be settled.
func (c *Core) Close(context.Context) error {
	if n := c.stopped.Load(); n > 0 {
		c.log.Warn().Uint64("messages", n).Msg("messages that came too late for the route are lost")
	}
	return nil
}

// handler returns the callback of one subscription. nats.go calls it from one goroutine, so the
// id generator needs no lock, unlike nuid's global one.
func (c *Core) handler(nc *nats.Conn, accept func(*relay.Message) error) nats.MsgHandler {
	ids := nuid.New()
	return func(m *nats.Msg) {
		msg := &relay.Message{
			Subject: m.Subject,
			Header:  relay.Header(m.Header),
			Data:    m.Data,
			Time:    time.Now(),
		}
		if c.cfg.Reply {
			msg.Respond = responder(nc, m)
		}
		if msg.ID = msg.Header.Get(relay.HeaderMsgID); msg.ID == "" {
			msg.ID = ids.Next()
		}
		// Any other error is the route's own decision about the message, and counted there.
		if err := accept(msg); errors.Is(err, relay.ErrStopped) && c.stopped.Add(1) == 1 {
			c.log.Warn().Err(err).Msg("messages arrive that the route no longer takes: they are lost")
		}
	}
}

// limits returns the pending limits of each of n subscriptions. A subscription whose share were
// smaller than the largest message would drop every large one, however idle it is.
func (c *Core) limits(n int, maxPayload int64) (messages, bytes int) {
	return max(c.pendingMessages/n, 1), max(c.pendingBytes/n, 2*int(maxPayload))
}
