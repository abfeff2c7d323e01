package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
)

// replayBatch is how many messages go to disk in one write.
const replayBatch = 1000

func newSpoolReplay() *cobra.Command {
	target := spoolTarget{shelf: spools(), create: true}
	cmd := &cobra.Command{
		Use:   "replay ROUTE FILE",
		Short: "Put exported messages into a route's spool, behind what is there",
		Long: `FILE - is the standard input. The messages keep their ids and times, and are delivered when the relay starts. The file is read
to its end before anything is written: a line that is wrong leaves the spool as it is.`,
		Example: "$ natsrelay spool replay orders orders.jsonl",
		Args:    exactArguments("ROUTE", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRouteName(args[0]); err != nil {
				return err
			}
			return target.withState(func(stateDir string, configured map[string]bool) error {
				if err := mustBeConfigured(args[0], configured); err != nil {
					return err
				}
				return replayFile(cmd, spoolDir(stateDir, args[0]), args[1])
			})
		},
	}
	target.flags(cmd)
	return cmd
}

func replayFile(cmd *cobra.Command, dir, path string) error {
	if path == "-" {
		return withoutFile(cmd, dir)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return replay(cmd, dir, path, f)
}

// withoutFile replays the standard input by way of a temporary file, since it is read twice.
func withoutFile(cmd *cobra.Command, dir string) error {
	f, err := os.CreateTemp("", "natsrelay-replay-*.jsonl")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.Copy(f, cmd.InOrStdin()); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	return replay(cmd, dir, "-", f)
}

func replay(cmd *cobra.Command, dir, name string, f io.ReadSeeker) (err error) {
	total := 0
	if err := readLines(cmd.Context(), name, f, func(*relay.Stored) error { total++; return nil }); err != nil {
		return err
	}
	s, err := spool.Open(dir, spool.Options{MaxBytes: math.MaxInt64, Sync: spool.SyncNever})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Sync(), s.Close()) }()
	bar := newProgress(cmd.ErrOrStderr(), "replaying", "messages")
	defer bar.end()
	w := replayWriter{spool: s}
	err = readLines(cmd.Context(), name, f, func(m *relay.Stored) error {
		bar.set(int64(w.written), int64(total))
		return w.add(m)
	})
	if err = errors.Join(err, w.flush()); err != nil {
		return fmt.Errorf("after %s of %d were written: %w", count(w.written, "message"), total, err)
	}
	bar.end()
	fmt.Fprintf(cmd.ErrOrStderr(), "%s replayed\n", count(w.written, "message"))
	return nil
}

// replayWriter appends messages to a spool in batches.
type replayWriter struct {
	spool   *spool.Spool
	batch   []spool.Record
	written int
}

func (w *replayWriter) add(m *relay.Stored) error {
	m.Seq = w.spool.LastSeq() + uint64(len(w.batch)) + 1
	w.batch = append(w.batch, m.EncodeRecord())
	if len(w.batch) < replayBatch {
		return nil
	}
	return w.flush()
}

func (w *replayWriter) flush() error {
	if len(w.batch) == 0 {
		return nil
	}
	n, err := w.spool.Append(w.batch)
	w.written += n
	w.batch = w.batch[:0]
	return err
}

// readLines reads the file from its beginning and calls fn with each message.
func readLines(ctx context.Context, name string, f io.ReadSeeker, fn func(*relay.Stored) error) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in := bufio.NewReaderSize(f, 1<<16)
	for n := 1; ctx.Err() == nil; n++ {
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return err
		}
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		m, err := relay.ParseJSONLine(line)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if err := fn(m); err != nil {
			return err
		}
	}
	return ctx.Err()
}
