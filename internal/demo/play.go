package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
)

// play is the plot: all is well, the receivers leave, the relay is killed and started again, the receivers
// come back, the relay catches up.
func (d *demo) play(ctx context.Context) error {
	following, stop := context.WithCancel(ctx)
	var screen sync.WaitGroup
	screen.Go(func() { d.screen.follow(following, d.progress) })
	defer screen.Wait()
	defer stop()

	d.say("publishing %d messages a second to the edge; two routes relay them", d.Rate)
	calm := (d.Duration - d.Outage) / 2
	if err := d.pub.run(ctx, calm); err != nil {
		return err
	}
	if err := d.outage(ctx); err != nil {
		return err
	}
	if err := d.pub.run(ctx, calm); err != nil {
		return err
	}
	d.say("published everything")
	if err := d.waitDelivered(ctx); err != nil {
		return err
	}
	return d.relay.stop()
}

// outage publishes while the receivers are away, and kills the relay halfway.
func (d *demo) outage(ctx context.Context) error {
	began := time.Now()
	if err := errors.Join(d.web.leave(ctx), d.cloud.leave(ctx)); err != nil {
		return err
	}
	d.say("the HTTP receiver and the cloud server are gone")
	if err := d.pub.run(ctx, d.Outage/2); err != nil {
		return err
	}
	if err := d.killRelay(ctx); err != nil {
		return err
	}
	if err := d.startRelay(ctx); err != nil {
		return err
	}
	d.say("the relay runs again, publishing goes on; the receivers are still gone")
	if err := d.pub.run(ctx, max(d.Outage-time.Since(began), d.Outage/4)); err != nil {
		return err
	}
	for _, r := range d.routes {
		r.tally.back(d.pub.published())
	}
	if err := errors.Join(d.web.back(), d.cloud.back()); err != nil {
		return err
	}
	d.say("the receivers are back")
	return nil
}

// killRelay kills the relay with SIGKILL once it has on disk what it has taken, and counts what is there.
func (d *demo) killRelay(ctx context.Context) error {
	d.say("publishing pauses: core NATS keeps nothing for a relay that is not there, so what came now would be nobody's")
	err := poll(ctx, patience, "the relay has everything on disk", func() (bool, error) {
		// The relay is at work on these files: an error only means to look again.
		return d.countSurvivors() == nil && d.allStored(), nil
	})
	if err != nil {
		return err
	}
	d.relay.kill()
	lock, err := spool.LockDir(d.stateDir())
	if err != nil {
		return err
	}
	if err := errors.Join(d.countSurvivors(), lock.Close()); err != nil {
		return err
	}
	d.say("the relay is killed (SIGKILL); undelivered, on disk: %s", d.survivors())
	return d.waitSubscriptions(ctx, 0)
}

// countSurvivors looks into the spools.
func (d *demo) countSurvivors() error {
	for _, r := range d.routes {
		found, err := spool.Inspect(d.spoolDir(r))
		if err != nil {
			return fmt.Errorf("look into the spool of %s: %w", r.name, err)
		}
		r.survived = found.Stats.Records
	}
	return nil
}

// allStored reports whether every message that has not arrived is on disk.
func (d *demo) allStored() bool {
	for _, r := range d.routes {
		if r.survived < d.pub.published()-r.tally.sum().distinct {
			return false
		}
	}
	return true
}

// startRelay starts the relay and waits until its routes have subscribed.
func (d *demo) startRelay(ctx context.Context) (err error) {
	if d.relay, err = startChild(d.Exe, d.config(), d.log, d.lost); err != nil {
		return err
	}
	return d.waitSubscriptions(ctx, len(d.routes))
}

func (d *demo) waitSubscriptions(ctx context.Context, n int) error {
	what := fmt.Sprintf("the relay has %d subscriptions on the edge server", n)
	return poll(ctx, patience, what, func() (bool, error) {
		found, err := subscriptions(d.edge)
		return found == n, err
	})
}

// waitDelivered waits until all has arrived, or nothing has for a while.
func (d *demo) waitDelivered(ctx context.Context) error {
	const quiet = 20 * time.Second
	progress := time.Now()
	before := -1
	return poll(ctx, time.Hour, "everything is delivered", func() (bool, error) {
		arrived, all := 0, true
		for _, r := range d.routes {
			n := r.tally.sum().distinct
			arrived += n
			all = all && n >= d.pub.published()
		}
		if arrived != before {
			before, progress = arrived, time.Now()
		}
		return all || time.Since(progress) > quiet, nil
	})
}
