package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

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
			return target.withRoute(args[0], func(dir string) error {
				_, err := writeMessages(cmd.Context(), cmd.OutOrStdout(), dir, &which, func(int) {})
				return err
			})
		},
	}
	target.flags(cmd)
	which.flags(cmd)
	return cmd
}

// flags are those by which messages are chosen.
func (s *selection) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.subject, "subject", "", "only subjects that match this `PATTERN` (with the wildcards * and >)")
	cmd.Flags().StringVar(&s.since, "since", "", "only what arrived after this `TIME` (RFC 3339), or this long ago (such as 2h)")
	cmd.Flags().IntVar(&s.limit, "limit", 0, "at most so many; 0 = all")
}

// selection says which messages of a spool are wanted.
type selection struct {
	subject, since string
	limit          int

	after time.Time
}

func (s *selection) parse(now time.Time) error {
	if s.limit < 0 {
		return errors.New("--limit must not be negative")
	}
	if s.since == "" {
		return nil
	}
	if ago, err := time.ParseDuration(s.since); err == nil {
		s.after = now.Add(-ago)
		return nil
	}
	var err error
	if s.after, err = time.Parse(time.RFC3339, s.since); err != nil {
		return fmt.Errorf("--since %q is neither a time such as 2026-11-01T12:00:00Z nor a duration such as 2h", s.since)
	}
	return nil
}

func (s *selection) wants(m *relay.Stored) bool {
	return m.Time.After(s.after) && (s.subject == "" || matches(s.subject, m.Subject))
}

// matches reports whether a subject matches a pattern with wildcards (docs.nats.io, "Subject-Based Messaging").
func matches(pattern, subject string) bool {
	want, have := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range want {
		if token == ">" && i == len(want)-1 {
			return len(have) > i
		}
		if i >= len(have) || token != "*" && token != have[i] {
			return false
		}
	}
	return len(want) == len(have)
}

// errEnough ends a walk before its end.
var errEnough = errors.New("enough")

// writeMessages writes the messages of a spool as JSON lines and returns how many. seen is called with the number of records read so far.
func writeMessages(ctx context.Context, out io.Writer, dir string, which *selection, seen func(int)) (written int, err error) {
	buffered := bufio.NewWriterSize(out, 1<<16)
	var line []byte
	read := 0
	err = spool.Walk(ctx, dir, 0, func(rec spool.Record) error {
		read++
		seen(read)
		m, err := relay.DecodeRecord(rec)
		if err != nil {
			return err
		}
		if !which.wants(m) {
			return nil
		}
		if line, err = m.AppendJSONLine(line[:0]); err != nil {
			return err
		}
		if _, err := buffered.Write(line); err != nil {
			return err
		}
		if written++; written == which.limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return written, errors.Join(err, buffered.Flush())
}
