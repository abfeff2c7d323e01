package natsconn

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/config"
)

// ErrClosed is returned once the Conn's owner has closed it.
var ErrClosed = errors.New("nats connection closed")

// Options are what a Conn needs beside its [nats.NAME] table.
type Options struct {
	Instance string // the relay's name
	Role     string // what the connection is for: "source", "sink", …; part of its name on the server
	Log      zerolog.Logger
}

// A Conn is one connection to a NATS cluster that always comes back. All methods may be
// called from any goroutine.
type Conn struct {
	cfg    *config.NATS
	events *events
	state  state
	outage outage
	dialer *dialer

	life     context.Context // ends the sockets and whatever still waits for the network
	kill     context.CancelFunc
	stopping chan struct{} // closed by Close: connect no more, drain
	stopOnce sync.Once
	done     chan struct{} // closed when run has returned
}

// Open starts connecting and returns at once; an error means that the settings can never work.
// Close stops it.
func Open(cfg *config.NATS, opts Options) (*Conn, error) {
	if err := checkURLs(cfg.URLs); err != nil {
		return nil, err
	}
	if err := checkSeed(cfg.NkeySeed); err != nil {
		return nil, err
	}
	dial, err := newDial(cfg.Proxy)
	if err != nil {
		return nil, err
	}
	c := newConn(cfg, opts, dial)
	go c.run(clientName(opts))
	return c, nil
}

func newConn(cfg *config.NATS, opts Options, dial dialFunc) *Conn {
	log := opts.Log.With().Str("nats", cfg.Name).Str("role", opts.Role).Logger()
	c := &Conn{
		cfg:      cfg,
		outage:   outage{backoff: newBackoff(cfg.Reconnect)},
		stopping: make(chan struct{}),
		done:     make(chan struct{}),
	}
	c.state.init()
	c.events = newEvents(log)
	c.life, c.kill = context.WithCancel(context.Background())
	c.dialer = &dialer{life: c.life, dial: dial, timeout: cfg.ConnectTimeout}
	if cfg.TLS != nil && cfg.TLS.InsecureSkipVerify {
		log.Warn().Msg("tls.insecure_skip_verify is set: the server's certificate is not checked")
	}
	return c
}

// Name returns the connection's name in the configuration.
func (c *Conn) Name() string { return c.cfg.Name }

// Attach waits for the first connection and returns nats.go's handle, and a channel that is closed
// when nats.go has given that handle up for good: subscriptions made on it are gone then, and
// Attach returns its successor. The handle outlives ordinary cuts; nats.go renews its subscriptions
// itself.
func (c *Conn) Attach(ctx context.Context) (*nats.Conn, <-chan struct{}, error) {
	for {
		s, _, changed := c.state.get()
		if s != nil {
			return s.nc.Load(), s.closed, nil
		}
		if err := c.wait(ctx, changed); err != nil {
			return nil, nil, err
		}
	}
}

// WaitConnected returns nil as soon as the connection is up.
func (c *Conn) WaitConnected(ctx context.Context) error {
	for {
		_, up, changed := c.state.get()
		if up {
			return nil
		}
		if err := c.wait(ctx, changed); err != nil {
			return err
		}
	}
}

func (c *Conn) wait(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-c.stopping:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close drains the connection and ends it. When ctx ends first, the connection is cut, and
// ctx's error returned; either way nothing of it is left running.
func (c *Conn) Close(ctx context.Context) error {
	c.stopOnce.Do(func() { close(c.stopping) })
	if _, up, _ := c.state.get(); !up {
		c.kill() // nothing to drain: end a dial in progress
	}
	var err error
	select {
	case <-c.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.kill()
	<-c.done
	return err
}

// run keeps one session alive after the other until Close. It owns every session.
func (c *Conn) run(name string) {
	defer close(c.done)
	defer c.kill()
	for round := 1; !c.stopped(); round++ {
		s, err := c.connect(name)
		if err != nil {
			pause := c.outage.pause(round)
			c.events.countAttempt(err)
			c.events.attemptFailed(c.dialer.lastAddr(), err, pause)
			c.sleep(pause)
			continue
		}
		c.serve(s)
		round = 0
		if !c.stopped() {
			pause, _ := c.outage.begin(c.state.lived())
			c.sleep(pause)
		}
	}
}

// serve waits until nats.go has closed the session for good, or closes it when the Conn stops.
func (c *Conn) serve(s *session) {
	c.state.attach(s)
	select {
	case <-s.closed:
	case <-c.stopping:
		c.end(s)
	}
	c.state.detach() // again: it may have been closed before it was attached
	c.events.closed(s.nc.Load().LastError(), c.stopped())
}

// end drains the session; once the Conn's life has ended, it closes it.
func (c *Conn) end(s *session) {
	if _, up, _ := c.state.get(); up {
		_ = s.nc.Load().Drain() // an error means that it is closed, or being closed, already
	} else {
		c.kill()
	}
	select {
	case <-s.closed:
	case <-c.life.Done():
		s.nc.Load().Close()
		<-s.closed
	}
}

func (c *Conn) stopped() bool {
	select {
	case <-c.stopping:
		return true
	default:
		return false
	}
}

func (c *Conn) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.stopping:
	}
}
