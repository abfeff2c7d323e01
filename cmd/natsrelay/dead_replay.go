package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/natsrelay/natsrelay/sinks"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
)

func newDeadReplay() *cobra.Command {
	target := spoolTarget{shelf: deadLetters()}
	var which selection
	cmd := &cobra.Command{
		Use:   "replay ROUTE",
		Short: "Put dead letters back into their route, behind what waits there",
		Long: `They become the messages again that they were, without the headers that say why they were given up, with their ids and times;
filter and transformation do not see them again. A running relay delivers them in their turn, a stopped one when it starts. A dead letter is
removed once its message is delivered, or safe in the route's spool.`,
		Example: "$ natsrelay dead replay orders --subject 'orders.eu.>'",
		Args:    exactArguments("ROUTE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := which.parse(time.Now()); err != nil {
				return withStatus(err, exitUsage)
			}
			bar := newProgress(cmd.ErrOrStderr(), "replaying", "messages")
			defer bar.end()
			var moved int
			err := target.work(cmd.Context(), func(stateDir string, configured map[string]config.Buffer) error {
				from, err := target.existing(stateDir, args[0])
				if err == nil {
					err = mustBeConfigured(args[0], configured)
				}
				if err != nil {
					return err
				}
				moved, err = redrive(cmd.Context(), from, spoolDir(stateDir, args[0]), replayOptions(configured, args[0]), &which.Selection, bar)
				return err
			}, func(client *admin.Client) (err error) {
				moved, err = client.ReplayDead(cmd.Context(), args[0], which.Selection, bar.set)
				return err
			})
			if err != nil {
				return err
			}
			bar.end()
			fmt.Fprintf(cmd.ErrOrStderr(), "%s replayed\n", count(moved, "message"))
			return nil
		},
	}
	target.flags(cmd)
	which.flags(cmd)
	return cmd
}

// mustBeConfigured refuses to give messages to a route that nobody runs. configured is nil if there is no configuration.
func mustBeConfigured(route string, configured map[string]config.Buffer) error {
	if _, ok := configured[route]; !ok && configured != nil {
		return withHints(fmt.Errorf("there is no route %q in the configuration, so nobody would deliver the messages", route), "natsrelay spool ls")
	}
	return nil
}

// openDead returns the store of the dead letters in a folder, for what is there to be taken out.
func openDead(dir string, log zerolog.Logger) *sinks.DeadLetterDisk {
	return sinks.NewDeadLetterDisk(dir, math.MaxInt64, 0, log)
}

// redrive moves dead letters from one folder to the spool in the other, and returns how many.
func redrive(ctx context.Context, from, to string, o spool.Options, which *relay.Selection, bar *progress) (moved int, err error) {
	dead := openDead(from, zerolog.Nop())
	defer func() { err = errors.Join(err, dead.Close(ctx)) }()
	route, err := spool.Open(to, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, route.Close()) }()
	moved, err = dead.Redrive(ctx, sinks.Redrive{
		Which:    *which,
		Progress: func(done, total int) { bar.set(int64(done), int64(total)) },
		Put: func(_ context.Context, batch []*relay.Stored) error {
			w := replayWriter{spool: route}
			for _, m := range batch {
				if err := w.add(m); err != nil {
					return err
				}
			}
			return errors.Join(w.flush(), route.Sync())
		},
	})
	if err != nil {
		err = fmt.Errorf("after %s were replayed: %w", count(moved, "message"), err)
	}
	return moved, err
}
