package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/sinks"
	"github.com/natsrelay/natsrelay/sources"
	"github.com/rs/zerolog"
)

// checkPatience is how long one end of a route may take to be looked at, once it is connected.
const checkPatience = 5 * time.Second

// connectPatience is how long a connection may take: a member of the cluster that does not answer must not fail the check while another one does.
func connectPatience(n *config.NATS) time.Duration {
	return checkPatience + time.Duration(len(n.URLs)-1)*n.ConnectTimeout
}

// An onlineCheck looks at the ends of routes, and prints what it finds, a line each.
type onlineCheck struct {
	cfg    *config.Config
	out    io.Writer
	failed int
	down   map[string]string // the connections that could not be made, and why: no end of a route waits for one again
}

// checkOnline looks at both ends of every route that is enabled, and fails if one of them would not work.
func checkOnline(ctx context.Context, cfg *config.Config, out io.Writer) error {
	c := &onlineCheck{cfg: cfg, out: out, down: map[string]string{}}
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
	taken := c.source(ctx, r)
	given := c.sink(ctx, r)
	if given > 0 && taken > given {
		c.end(r, "sink").warn("its server takes payloads of %d bytes, the source's %d: larger messages become dead letters; raise max_payload", given, taken)
	}
	if r.DeadLetter.To == "nats" {
		e := c.end(r, "dead letters")
		e.nats(ctx, r.DeadLetter.NATS, func(_ context.Context, s *natsServer) error {
			e.mayPublish(s, []string{r.DeadLetter.Subject})
			return nil
		})
	}
}

// source looks at the route's source, and returns the max_payload of its server, 0 if that is not known.
func (c *onlineCheck) source(ctx context.Context, r *config.Route) (maxPayload int64) {
	e := c.end(r, "source")
	if core := r.Source.Core; core != nil {
		return e.nats(ctx, core.NATS, func(_ context.Context, s *natsServer) error {
			e.maySubscribe(s, core)
			return nil
		})
	}
	js := r.Source.JetStream
	return e.nats(ctx, js.NATS, func(ctx context.Context, s *natsServer) error {
		return sources.CheckJetStream(ctx, s.conn, s.nc, js, s.permissions, s.log)
	})
}

// sink looks at the route's sink, and returns the max_payload of its server, 0 if there is none or it is not known.
func (c *onlineCheck) sink(ctx context.Context, r *config.Route) (maxPayload int64) {
	e := c.end(r, "sink")
	if r.Sink.HTTP != nil {
		e.http(ctx, r.Sink.HTTP)
		return 0
	}
	return e.nats(ctx, r.Sink.NATS.NATS, func(ctx context.Context, s *natsServer) error {
		e.mayPublish(s, subjectsAfter(r))
		if r.Sink.NATS.JetStream == nil {
			return nil
		}
		sink := sinks.NewJetStream(s.conn, r.Sink.NATS, sinks.JetStreamOptions{RetryMax: r.Delivery.Retry.Max, Log: s.log})
		return sink.Check(ctx, subjectsAfter(r), s.permissions)
	})
}

// An endCheck looks at one end of a route.
type endCheck struct {
	check *onlineCheck
	route *config.Route
	name  string
}

func (c *onlineCheck) end(r *config.Route, name string) *endCheck {
	return &endCheck{check: c, route: r, name: name}
}

// nats connects, has look look at the server, and returns its max_payload, 0 if there is no connection.
func (e *endCheck) nats(ctx context.Context, name string, look func(context.Context, *natsServer) error) int64 {
	if down, ok := e.check.down[name]; ok {
		e.fail("%s", down)
		return 0
	}
	connecting, looking := new(lastWords), new(lastWords)
	conn, err := natsconn.Open(e.check.cfg.NATS[name], natsconn.Options{Instance: e.check.cfg.Instance, Role: "check", Log: zerolog.New(connecting)})
	if err != nil {
		e.fail("nats %q: %v", name, err)
		return 0
	}
	patient, cancel := context.WithTimeout(ctx, connectPatience(e.check.cfg.NATS[name]))
	defer cancel()
	defer conn.Close(patient) // cut at the latest when that ends
	nc, _, err := conn.Attach(patient)
	if err != nil {
		e.check.down[name] = fmt.Sprintf("nats %q: not connected: %s", name, connecting.err(err))
		e.fail("%s", e.check.down[name])
		return 0
	}
	e.say("nats %q: connected to %s, nats-server %s, max_payload %d", name, nc.ConnectedUrlRedacted(), nc.ConnectedServerVersion(), nc.MaxPayload())
	ctx, cancel = context.WithTimeout(ctx, checkPatience)
	defer cancel()
	s := &natsServer{conn: conn, nc: nc, log: zerolog.New(looking)}
	e.askPermissions(ctx, s)
	err = look(ctx, s)
	for _, text := range looking.notes() {
		e.say("%s", text)
	}
	if err != nil {
		for problem := range strings.SplitSeq(err.Error(), "\n") { // of errors.Join
			e.fail("%s", problem)
		}
	}
	return nc.MaxPayload()
}

// http connects to the servers that the sink needs, and sends nothing.
func (e *endCheck) http(ctx context.Context, sink *config.HTTPSink) {
	e.httpServer(ctx, sink, sink.URL, sink.Endpoint)
	if sink.OAuth2 != nil {
		e.httpServer(ctx, sink, sink.OAuth2.TokenURL, "oauth2.token_url")
	}
}

// httpServer connects to the server of a URL, which is called what in public.
func (e *endCheck) httpServer(ctx context.Context, sink *config.HTTPSink, to, what string) {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	direct, err := sinks.ConnectHTTP(ctx, sink, to)
	switch {
	case err != nil:
		e.fail("%s: %v", what, err)
	case !direct:
		e.say("%s: not looked at: it is behind a proxy", what)
	case strings.HasPrefix(to, "https://"):
		e.say("%s: somebody listens there, with a certificate that is trusted", what)
	default:
		e.say("%s: somebody listens there", what)
	}
}

func (e *endCheck) fail(format string, args ...any) {
	e.check.failed++
	e.say("FAILS: "+format, args...)
}

func (e *endCheck) warn(format string, args ...any) { e.say("warning: "+format, args...) }

func (e *endCheck) say(format string, args ...any) {
	fmt.Fprintf(e.check.out, "%s: %s: %s\n", e.route.Name, e.name, fmt.Sprintf(format, args...))
}
