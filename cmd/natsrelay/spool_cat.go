package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
)

func newCat(s shelf) *cobra.Command {
	target := spoolTarget{shelf: s}
	var which selection
	cmd := &cobra.Command{
		Use:     "cat ROUTE",
		Short:   "Print the messages, oldest first, as JSON lines",
		Example: "$ natsrelay " + s.command + " cat orders --subject 'orders.eu.>' --since 2h --limit 10",
		Args:    exactArguments("ROUTE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := which.parse(time.Now()); err != nil {
				return withStatus(err, exitUsage)
			}
			return target.workOn(cmd.Context(), args[0], func(dir string) error {
				_, err := writeMessages(cmd.Context(), cmd.OutOrStdout(), dir, which.Selection, func(int) {})
				return err
			}, func(client *admin.Client) error {
				_, err := client.Messages(cmd.Context(), s.command, args[0], which.Selection, cmd.OutOrStdout(), func(int) {})
				return err
			})
		},
	}
	target.flags(cmd)
	which.flags(cmd)
	return cmd
}

// selection says on the command line which messages are wanted.
type selection struct {
	relay.Selection
	since string
}

func (s *selection) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.Subject, "subject", "", "only subjects that match this `PATTERN` (with the wildcards * and >)")
	cmd.Flags().StringVar(&s.since, "since", "", "only what arrived after this `TIME` (RFC 3339), or this long ago (such as 2h)")
	cmd.Flags().IntVar(&s.Limit, "limit", 0, "at most `N`; 0 = all")
}

func (s *selection) parse(now time.Time) error {
	if s.Limit < 0 {
		return errors.New("--limit must not be negative")
	}
	if s.since == "" {
		return nil
	}
	if ago, err := time.ParseDuration(s.since); err == nil {
		s.After = now.Add(-ago)
		return nil
	}
	var err error
	if s.After, err = time.Parse(time.RFC3339, s.since); err != nil {
		return fmt.Errorf("--since %q is neither a time such as 2026-11-01T12:00:00Z nor a duration such as 2h", s.since)
	}
	return nil
}

// errEnough ends a walk before its end.
var errEnough = errors.New("enough")

// walkMessages calls fn with the messages of a spool that are wanted, oldest first, until it returns an error.
func walkMessages(ctx context.Context, dir string, which relay.Selection, fn func(*relay.Stored) error) error {
	n := 0
	err := spool.Walk(ctx, dir, 0, func(rec spool.Record) error {
		m, err := relay.DecodeRecord(rec)
		if err != nil || !which.Wants(m) {
			return err
		}
		if err := fn(m); err != nil {
			return err
		}
		if n++; n == which.Limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// writeMessages writes messages of a spool as JSON lines, and returns how many. seen is called with the number so far.
func writeMessages(ctx context.Context, out io.Writer, dir string, which relay.Selection, seen func(int)) (written int, err error) {
	buffered := bufio.NewWriterSize(out, 1<<16)
	var line []byte
	err = walkMessages(ctx, dir, which, func(m *relay.Stored) (err error) {
		if line, err = m.AppendJSONLine(line[:0]); err != nil {
			return err
		}
		if _, err := buffered.Write(line); err != nil {
			return err
		}
		written++
		seen(written)
		return nil
	})
	return written, errors.Join(err, buffered.Flush())
}
