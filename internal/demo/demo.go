// Package demo shows what the relay is for: messages cross a link that breaks, and a relay that is killed, without
// loss and in order.
//
// It runs two NATS servers (edge, cloud) and an HTTP receiver in this process, and the relay as a
// child process with a relay.toml of its own. play, in play.go, is the plot.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Options are the settings of a demo. All are required unless it says otherwise.
type Options struct {
	Duration time.Duration // how long messages are published, the outage included
	Outage   time.Duration // how long the receivers are away, in the middle
	Rate     int           // messages a second
	Keep     bool          // leave the folder with configuration and state behind
	Exe      string        // the natsrelay program
	Out      io.Writer
}

// Check says what is wrong with the options, or nil.
func (o Options) Check() error {
	switch {
	case o.Outage < 500*time.Millisecond:
		return fmt.Errorf("--outage %v: it must last at least 500ms", o.Outage)
	case o.Duration < 2*o.Outage:
		return fmt.Errorf("--duration %v: it must be at least twice the outage, which is %v", o.Duration, o.Outage)
	case o.Rate < 1 || o.Rate > 50_000:
		return fmt.Errorf("--rate %d: it must be from 1 to 50000 messages a second", o.Rate)
	}
	return nil
}

// A demo is everything on the stage.
type demo struct {
	Options
	screen *screen
	began  time.Time
	dir    string
	lost   func(error) // called when the relay ends by itself

	edge  *server.Server
	pub   *publisher
	web   *web
	cloud *cloud
	relay *child
	log   *relayLog

	routes []*route
}

// A route is one of the demo's routes with its receiver's account of it.
type route struct {
	name, to string
	tally    *tally
	survived int // messages that were on disk when the relay had been killed
}

func (r *route) title() string { return "edge → " + r.to }

// Run plays the demo. The error says what was lost, or what went wrong; ctx ends it early. Nothing
// of it is left behind, either way.
func Run(ctx context.Context, o Options) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d := &demo{Options: o, screen: newScreen(o.Out, cancel), began: time.Now(), log: newRelayLog(), lost: cancel}
	d.routes = []*route{
		{name: "web", to: "HTTP", tally: newTally(false, d.began)},
		{name: "cloud", to: "cloud", tally: newTally(true, d.began)},
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.open(ctx); err != nil {
		return err
	}
	if err := d.play(ctx); err != nil {
		return d.explain(err)
	}
	return d.explain(d.verdict())
}

// open sets the stage.
func (d *demo) open(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "natsrelay-demo-"); err != nil {
		return err
	}
	if d.edge, err = startServer("edge", true); err != nil {
		return err
	}
	if d.web, err = newWeb(d.routes[0].tally); err != nil {
		return err
	}
	if d.cloud, err = newCloud(d.routes[1].tally); err != nil {
		return err
	}
	if d.pub, err = newPublisher(d.edge, d.Rate, d.began); err != nil {
		return err
	}
	text := relayTOML(d.stateDir(), d.edge.ClientURL(), d.web.addr, d.cloud.addr)
	d.screen.say("# relay.toml of this demo\n%s", text)
	if err := os.WriteFile(d.config(), []byte(text), 0o600); err != nil {
		return err
	}
	return d.startRelay(ctx)
}

// close clears the stage, in the opposite order.
func (d *demo) close() error {
	var errs []error
	if d.relay != nil {
		d.relay.kill()
	}
	if d.pub != nil {
		d.pub.close()
	}
	if d.cloud != nil {
		errs = append(errs, d.cloud.leave(context.Background()))
	}
	if d.web != nil {
		errs = append(errs, d.web.leave(context.Background()))
	}
	if d.edge != nil {
		stopServer(d.edge)
	}
	switch {
	case d.dir == "":
	case d.Keep:
		d.screen.say("kept: %s", d.dir)
	default:
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

func (d *demo) config() string           { return filepath.Join(d.dir, "relay.toml") }
func (d *demo) stateDir() string         { return filepath.Join(d.dir, "state") }
func (d *demo) spoolDir(r *route) string { return filepath.Join(d.stateDir(), "spool", r.name) }

// explain adds the end of the relay's log to an error that is not the user's wish.
func (d *demo) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, syscall.EPIPE) {
		return err
	}
	return fmt.Errorf("%w\nthe relay's last words:\n%s", err, d.log)
}
