package main

import (
	"context"
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

// A wiring builds what a configuration describes.
type wiring struct {
	cfg   *config.Config
	log   zerolog.Logger
	conns *connections
}

// plan returns the routes that are enabled. Making the plan touches nothing; opening a route of it touches the disk and starts to connect.
func (w *wiring) plan() relay.Plan {
	plan := relay.Plan{Drain: w.cfg.DrainTimeout}
	for _, r := range w.cfg.Routes {
		if !r.Enabled {
			w.log.Info().Str("route", r.Name).Msg("route is disabled")
			continue
		}
		plan.Routes = append(plan.Routes, relay.RoutePlan{
			Name:     r.Name,
			Settings: w.cfg.RouteSettings(r),
			Intake:   w.cfg.IntakeSettings(r),
			Open:     func(left *relay.Intake) (*relay.Route, error) { return w.route(r, left) },
		})
	}
	return plan
}

// route opens a route. Its connections are its own, and are closed with it.
func (w *wiring) route(r *config.Route, left *relay.Intake) (route *relay.Route, err error) {
	defer func() {
		if err != nil {
			w.conns.close(context.Background(), r.Name)
			if left == nil {
				w.conns.close(context.Background(), intakeOf(r))
			}
		}
	}()
	source, err := w.source(r, left)
	if err != nil {
		return nil, err
	}
	sink, err := w.sink(r, source)
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

		StallAfter:  stallAfter(r),
		DeadLetters: dead,
		Close:       func(ctx context.Context) { w.conns.close(ctx, r.Name) },
	}
	return relay.NewRoute(opts, source, sink, w.log)
}

// source returns the route's source: that which the route before has left to it, if it has.
func (w *wiring) source(r *config.Route, left *relay.Intake) (relay.Source, error) {
	switch {
	case left != nil:
		return left, nil
	case r.Source.Core != nil:
		conn, err := w.connectAs(intakeOf(r), r, r.Source.Core.NATS, "source")
		if err != nil {
			return nil, err
		}
		core := sources.NewCore(conn, r.Source.Core, w.routeLog(r))
		return relay.NewIntake(core, func(ctx context.Context) { w.conns.close(ctx, intakeOf(r)) }), nil
	case r.Source.JetStream != nil:
		conn, err := w.connect(r, r.Source.JetStream.NATS, "source")
		if err != nil {
			return nil, err
		}
		return sources.NewJetStream(conn, r.Source.JetStream, sourceDir(w.cfg.StateDir, r.Name), r.Delivery.Ordering != "none", w.routeLog(r))
	}
	return nil, fmt.Errorf("no source of type %q", r.Source.Type)
}

func (w *wiring) sink(r *config.Route, source relay.Source) (relay.Sink, error) {
	switch {
	case r.Sink.HTTP != nil:
		return sinks.NewHTTP(r.Sink.HTTP, r.Delivery.InFlight)
	case r.Sink.NATS != nil:
		conn, err := w.connect(r, r.Sink.NATS.NATS, "sink")
		if err != nil {
			return nil, err
		}
		if r.Sink.NATS.JetStream != nil {
			return sinks.NewJetStream(conn, r.Sink.NATS, w.jetStreamOptions(r, source)), nil
		}
		return sinks.NewNATS(conn, r.Sink.NATS), nil
	}
	return nil, fmt.Errorf("no sink of type %q", r.Sink.Type)
}

func (w *wiring) jetStreamOptions(r *config.Route, source relay.Source) sinks.JetStreamOptions {
	o := sinks.JetStreamOptions{
		Ordering: deliveryOptions(r.Delivery).Ordering,
		RetryMax: r.Delivery.Retry.Max,
		Via:      w.cfg.Instance + "/" + r.Name,
		Log:      w.routeLog(r),
	}
	if from, ok := source.(*sources.JetStream); ok {
		o.Domain = w.cfg.NATS[r.Source.JetStream.NATS].JetStreamDomain
		if r.Source.JetStream.Standby != "" {
			o.Standby, o.Pin = r.Source.JetStream.Durable, from.Pin
		}
	}
	return o
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
	return w.connectAs(r.Name, r, name, role)
}

// connectAs does the same, for an owner whose life is not the route's.
func (w *wiring) connectAs(owner string, r *config.Route, name, role string) (*natsconn.Conn, error) {
	conn, err := natsconn.Open(w.cfg.NATS[name], natsconn.Options{Instance: w.cfg.Instance, Role: r.Name + " " + role, Log: w.routeLog(r)})
	if err != nil {
		return nil, fmt.Errorf("connection %s: %w", name, err)
	}
	w.conns.add(owner, conn)
	return conn, nil
}

// intakeOf is the owner of the connection of a route's intake. No route has that name.
func intakeOf(r *config.Route) string { return r.Name + " intake" }

func (w *wiring) routeLog(r *config.Route) zerolog.Logger {
	return w.log.With().Str("route", r.Name).Logger()
}

// spoolDir is the folder of a route's spool. Routes have a folder of their own below state_dir: their names are the user's,
// and one of them may be "lock".
func spoolDir(stateDir, route string) string { return filepath.Join(stateDir, "spool", route) }

// sourceDir is the folder of what a route's source must remember.
func sourceDir(stateDir, route string) string { return filepath.Join(stateDir, "source", route) }

// deadDir is the folder of a route's dead letters.
func deadDir(stateDir, route string) string { return filepath.Join(stateDir, "dead", route) }
