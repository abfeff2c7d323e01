package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
)

func newDeadReplay() *cobra.Command {
	target := spoolTarget{shelf: deadLetters()}
	var which selection
	cmd := &cobra.Command{
		Use:   "replay ROUTE",
		Short: "Put dead letters back into their route, behind what waits there",
		Long: `They become the messages again that they were, without the headers that say why they were given up, with their ids and times, and
are delivered when the relay starts; filter and transformation do not see them again. A dead letter is removed once its
message is safe in the route's spool.`,
		Example: "$ natsrelay dead replay orders --subject 'orders.eu.>'",
		Args:    exactArguments("ROUTE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := which.parse(time.Now()); err != nil {
				return withStatus(err, exitUsage)
			}
			return target.withState(func(stateDir string, configured map[string]bool) error {
				from, err := target.existing(stateDir, args[0])
				if err != nil {
					return err
				}
				if err := mustBeConfigured(args[0], configured); err != nil {
					return err
				}
				return redrive(cmd, from, spoolDir(stateDir, args[0]), &which)
			})
		},
	}
	target.flags(cmd)
	which.flags(cmd)
	return cmd
}

// mustBeConfigured refuses to give messages to a route that nobody runs. configured is nil if there is no configuration.
func mustBeConfigured(route string, configured map[string]bool) error {
	if configured != nil && !configured[route] {
		return withHints(fmt.Errorf("there is no route %q in the configuration, so nobody would deliver the messages", route), "natsrelay spool ls")
	}
	return nil
}

// redrive moves messages from one spool to the other, and says how many.
func redrive(cmd *cobra.Command, from, to string, which *selection) (err error) {
	opts := spool.Options{MaxBytes: math.MaxInt64, Sync: spool.SyncNever}
	dead, err := spool.Open(from, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dead.Sync(), dead.Close()) }()
	route, err := spool.Open(to, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, route.Close()) }()

	bar := newProgress(cmd.ErrOrStderr(), "replaying", "messages")
	defer bar.end()
	m := mover{dead: dead, route: route, which: which, total: dead.Stats().Records, bar: bar}
	if err := m.run(cmd.Context()); err != nil {
		return fmt.Errorf("after %s were replayed: %w", count(m.moved, "message"), err)
	}
	bar.end()
	fmt.Fprintf(cmd.ErrOrStderr(), "%s replayed\n", count(m.moved, "message"))
	return nil
}

// A mover moves dead letters back into their route.
type mover struct {
	dead, route *spool.Spool
	which       *selection
	bar         *progress

	total, seen, moved int
}

func (m *mover) run(ctx context.Context) error {
	const readBytes = 1 << 20
	next := uint64(0)
	for ctx.Err() == nil && (m.which.limit == 0 || m.moved < m.which.limit) {
		records, err := m.dead.Read(next, readBytes, nil)
		if err != nil || len(records) == 0 {
			return err
		}
		next = records[len(records)-1].Seq + 1
		if err := m.move(records); err != nil {
			return err
		}
		m.bar.set(int64(m.seen), int64(m.total))
	}
	return ctx.Err()
}

// move writes the wanted ones of the records to the route's spool, and removes them once they are on the disk there. If it is
// killed in between, they are in both places.
func (m *mover) move(records []spool.Record) error {
	var old []uint64
	w := replayWriter{spool: m.route}
	for _, rec := range records {
		if m.which.limit > 0 && m.moved+len(old) == m.which.limit {
			break
		}
		m.seen++
		letter, err := relay.DecodeRecord(rec)
		if err != nil {
			return err
		}
		if !m.which.wants(letter) {
			continue
		}
		letter.Revive()
		if err := w.add(letter); err != nil {
			return err
		}
		old = append(old, rec.Seq)
	}
	if err := errors.Join(w.flush(), m.route.Sync()); err != nil {
		return err
	}
	m.dead.Settle(old)
	m.moved += len(old)
	return nil
}
