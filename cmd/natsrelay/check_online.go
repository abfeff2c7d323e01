package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/sinks"
	"github.com/rs/zerolog"
)

// checkPatience is how long one end of a route may take to be looked at.
const checkPatience = 5 * time.Second

// An onlineCheck looks at the ends of routes, and prints what it finds, a line each.
type onlineCheck struct {
	cfg    *config.Config
	out    io.Writer
	failed int
}

// checkOnline looks at both ends of every route that is enabled, and fails if one of them would not work.
func checkOnline(ctx context.Context, cfg *config.Config, out io.Writer) error {
	c := &onlineCheck{cfg: cfg, out: out}
	for _, r := range cfg.Routes {
		if r.Enabled {
			c.route(ctx, r)
		}
	}
	if c.failed > 0 {
		return fmt.Errorf("%s that would keep routes from working", count(c.failed, "problem"))
	}
	return nil
}

func (c *onlineCheck) route(ctx context.Context, r *config.Route) {
	var taken, given int64 // max_payload of source and sink
	switch {
	case r.Source.Core != nil:
		taken = c.nats(ctx, r, "source", r.Source.Core.NATS, nil)
	case r.Source.JetStream != nil:
		taken = c.nats(ctx, r, "source", r.Source.JetStream.NATS, func(ctx context.Context, conn *natsconn.Conn, nc *nats.Conn, _ zerolog.Logger) error {
			return lookAtSource(ctx, conn, nc, r.Source.JetStream)
		})
	}
	switch {
	case r.Sink.HTTP != nil:
		c.http(ctx, r)
	case r.Sink.NATS.JetStream != nil:
		given = c.nats(ctx, r, "sink", r.Sink.NATS.NATS, func(ctx context.Context, conn *natsconn.Conn, _ *nats.Conn, log zerolog.Logger) error {
			s := sinks.NewJetStream(conn, r.Sink.NATS, sinks.JetStreamOptions{RetryMax: r.Delivery.Retry.Max, Log: log})
			return s.Check(ctx, subjectsAfter(r))
		})
	default:
		given = c.nats(ctx, r, "sink", r.Sink.NATS.NATS, nil)
	}
	if given > 0 && taken > given {
		c.report(r, "sink", "warning: its server takes payloads of %d bytes, the source's %d: larger messages become dead letters; raise max_payload", given, taken)
	}
	if r.DeadLetter.To == "nats" {
		c.nats(ctx, r, "dead letters", r.DeadLetter.NATS, nil)
	}
}

// subjectsAfter returns what the messages' subjects match when they get to the sink, nil if a transformation makes others of them.
func subjectsAfter(r *config.Route) []string {
	if r.Transform.Subject != "" {
		return nil
	}
	return r.Source.Patterns()
}

// nats connects, looks on if there is more to see, and returns the server's max_payload, 0 if there is no connection.
func (c *onlineCheck) nats(ctx context.Context, r *config.Route, end, name string, look func(context.Context, *natsconn.Conn, *nats.Conn, zerolog.Logger) error) int64 {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	said := new(lastWords)
	log := zerolog.New(said)
	conn, err := natsconn.Open(c.cfg.NATS[name], natsconn.Options{Instance: c.cfg.Instance, Role: "check", Log: log})
	if err != nil {
		c.fail(r, end, "nats %q: %v", name, err)
		return 0
	}
	defer conn.Close(ctx) // cut at the latest when ctx ends
	nc, _, err := conn.Attach(ctx)
	if err != nil {
		c.fail(r, end, "nats %q: not connected: %s", name, said.err(err))
		return 0
	}
	c.report(r, end, "nats %q: connected to %s, version %s, max_payload %d", name, nc.ConnectedServerName(), nc.ConnectedServerVersion(), nc.MaxPayload())
	said.forget()
	if look != nil {
		err = look(ctx, conn, nc, log)
	}
	for _, text := range said.notes() {
		c.report(r, end, "%s", text)
	}
	if err != nil {
		c.fail(r, end, "%v", err)
	}
	return nc.MaxPayload()
}

// lookAtSource looks for the stream, and for the consumer where the relay does not make it.
func lookAtSource(ctx context.Context, conn *natsconn.Conn, nc *nats.Conn, source *config.JetStreamSource) error {
	js, err := conn.JetStream(nc)
	if err != nil {
		return err
	}
	stream, err := js.Stream(ctx, source.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("stream %q does not exist: create it, or mend source.stream", source.Stream)
	}
	if err != nil {
		return fmt.Errorf("stream %q: %w; the relay needs to be permitted $JS.API.STREAM.INFO.%s", source.Stream, err, source.Stream)
	}
	if source.Consumer != "bind" {
		return nil
	}
	if _, err := stream.Consumer(ctx, source.Durable); err != nil {
		return fmt.Errorf("consumer %q: %w; create it, or use consumer = \"ensure\"", source.Durable, err)
	}
	return nil
}

// http opens a connection to the endpoint, and sends nothing.
func (c *onlineCheck) http(ctx context.Context, r *config.Route) {
	u, err := url.Parse(r.Sink.HTTP.Endpoint)
	if err != nil || r.Sink.HTTP.Proxy != "" || u.Hostname() == "" {
		c.report(r, "sink", "%s: not looked at: it is behind a proxy, or its host is not plain to see", r.Sink.HTTP.Endpoint)
		return
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		c.fail(r, "sink", "%s: %v", r.Sink.HTTP.Endpoint, err)
		return
	}
	_ = conn.Close() // nothing was sent
	c.report(r, "sink", "%s: somebody listens there", r.Sink.HTTP.Endpoint)
}

func (c *onlineCheck) fail(r *config.Route, end, format string, args ...any) {
	c.failed++
	c.report(r, end, "FAILS: "+format, args...)
}

func (c *onlineCheck) report(r *config.Route, end, format string, args ...any) {
	fmt.Fprintf(c.out, "%s: %s: %s\n", r.Name, end, fmt.Sprintf(format, args...))
}

// lastWords keeps what is logged.
type lastWords struct {
	mu    sync.Mutex
	lines []logLine
}

type logLine struct {
	Level, Message, Error string
}

func (w *lastWords) Write(p []byte) (int, error) {
	var line logLine
	if err := json.Unmarshal(p, &line); err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, line)
	return len(p), nil
}

func (w *lastWords) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = nil
}

// err returns the last error that was logged, or else the given one.
func (w *lastWords) err(otherwise error) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.lines) - 1; i >= 0; i-- {
		if w.lines[i].Error != "" {
			return w.lines[i].Error
		}
	}
	return otherwise.Error()
}

// notes returns what was logged.
func (w *lastWords) notes() (texts []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.lines {
		text := line.Message
		if line.Level == "warn" {
			text = "warning: " + text
		}
		texts = append(texts, text)
	}
	return texts
}
