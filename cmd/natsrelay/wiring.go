package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/sinks"
	"github.com/natsrelay/natsrelay/sources"
	"github.com/natsrelay/natsrelay/stages"
	"github.com/rs/zerolog"
)

// A wiring builds what a configuration describes, and owns the connections.
type wiring struct {
	cfg   *config.Config
	log   zerolog.Logger
	conns []*natsconn.Conn
}

// relay returns the relay of all routes that are enabled. It touches the disk and starts to connect.
func (w *wiring) relay() (*relay.Relay, error) {
	var routes []*relay.Route
	for _, r := range w.cfg.Routes {
		if !r.Enabled {
			w.log.Info().Str("route", r.Name).Msg("route is disabled")
			continue
		}
		route, err := w.route(r)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", r.Name, err)
		}
		routes = append(routes, route)
	}
	return relay.New(w.cfg.DrainTimeout, w.log, routes...), nil
}

func (w *wiring) route(r *config.Route) (*relay.Route, error) {
	source, err := w.source(r)
	if err != nil {
		return nil, err
	}
	sink, err := w.sink(r)
	if err != nil {
		return nil, err
	}
	stage, err := stages.New(r)
	if err != nil {
		return nil, err
	}
	dead, err := w.deadLetters(r)
	if err != nil {
		return nil, err
	}
	opts := relay.RouteOptions{
		Name:     r.Name,
		Instance: w.cfg.Instance,
		Dir:      spoolDir(w.cfg.StateDir, r.Name),
		Buffer:   bufferOptions(r),
		Delivery: deliveryOptions(r.Delivery),
		Stage:    stage,

		DeadLetters: dead,
	}
	return relay.NewRoute(opts, source, sink, w.log)
}

func (w *wiring) source(r *config.Route) (relay.Source, error) {
	switch {
	case r.Source.Core != nil:
		conn, err := w.connect(r, r.Source.Core.NATS, "source")
		if err != nil {
			return nil, err
		}
		return sources.NewCore(conn, r.Source.Core, w.routeLog(r)), nil
	}
	return nil, fmt.Errorf("no source of type %q", r.Source.Type)
}

func (w *wiring) sink(r *config.Route) (relay.Sink, error) {
	switch {
	case r.Sink.HTTP != nil:
		return sinks.NewHTTP(r.Sink.HTTP, r.Delivery.InFlight)
	case r.Sink.NATS != nil:
		conn, err := w.connect(r, r.Sink.NATS.NATS, "sink")
		if err != nil {
			return nil, err
		}
		return sinks.NewNATS(conn, r.Sink.NATS), nil
	}
	return nil, fmt.Errorf("no sink of type %q", r.Sink.Type)
}

// deadLetters returns where the route's dead letters go, nil if nobody keeps them.
func (w *wiring) deadLetters(r *config.Route) (relay.DeadLetters, error) {
	switch r.DeadLetter.To {
	case "disk":
		return sinks.NewDeadLetterDisk(deadDir(w.cfg.StateDir, r.Name), r.DeadLetter.Max, r.Buffer.MinFree, w.routeLog(r)), nil
	case "nats":
		conn, err := w.connect(r, r.DeadLetter.NATS, "dead letters")
		if err != nil {
			return nil, err
		}
		return sinks.NewDeadLetterNATS(conn, r.DeadLetter), nil
	}
	return nil, nil
}

// connect opens a connection of the route's own, so that a consumer that the server cuts off for being slow
// takes nobody else along.
func (w *wiring) connect(r *config.Route, name, role string) (*natsconn.Conn, error) {
	conn, err := natsconn.Open(w.cfg.NATS[name], natsconn.Options{Instance: w.cfg.Instance, Role: r.Name + " " + role, Log: w.routeLog(r)})
	if err != nil {
		return nil, fmt.Errorf("connection %s: %w", name, err)
	}
	w.conns = append(w.conns, conn)
	return conn, nil
}

func (w *wiring) routeLog(r *config.Route) zerolog.Logger {
	return w.log.With().Str("route", r.Name).Logger()
}

// close ends the connections.
func (w *wiring) close(ctx context.Context) error {
	var errs []error
	for _, conn := range w.conns {
		if err := conn.Close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("close connection %s: %w", conn.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// spoolDir is the folder of a route's spool. Routes have a folder of their own below state_dir: their names are the user's,
// and one of them may be "lock".
func spoolDir(stateDir, route string) string { return filepath.Join(stateDir, "spool", route) }

// deadDir is the folder of a route's dead letters.
func deadDir(stateDir, route string) string { return filepath.Join(stateDir, "dead", route) }
