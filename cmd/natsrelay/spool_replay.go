package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/config"
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
		Long: `FILE - is the standard input. The messages keep their ids and times; a running relay delivers them in their turn, a stopped one when
it starts. Nothing else is given up to make room for them: where there is none, it says how many are in. The file is read to its end
before anything is written: a line that is wrong leaves the spool as it is.`,
		Example: "$ natsrelay spool replay orders orders.jsonl",
		Args:    exactArguments("ROUTE", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			route, path := args[0], args[1]
			if err := checkRouteName(route); err != nil {
				return err
			}
			return target.work(cmd.Context(), func(stateDir string, configured map[string]config.Buffer) error {
				if err := mustBeConfigured(route, configured); err != nil {
					return err
				}
				dir := spoolDir(stateDir, route)
				return withLines(cmd, path, " into "+dir+", to be delivered when the relay starts", func(f io.ReadSeeker, total int) (int, error) {
					return replay(cmd, dir, replayOptions(configured, route), path, f, total)
				})
			}, func(client *admin.Client) error {
				return withLines(cmd, path, "", func(f io.ReadSeeker, total int) (int, error) {
					return replayRunning(cmd, client, route, f)
				})
			})
		},
	}
	target.flags(cmd)
	return cmd
}

// withLines calls fn with a file of messages all lines of which are right, and says how many fn has replayed, and where.
func withLines(cmd *cobra.Command, path, where string, fn func(f io.ReadSeeker, total int) (int, error)) error {
	f, done, err := openLines(cmd, path)
	if err != nil {
		return err
	}
	defer done()
	total := 0
	if err := readLines(cmd.Context(), path, f, func(*relay.Stored) error { total++; return nil }); err != nil {
		return err
	}
	n, err := fn(f, total)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s replayed%s\n", count(n, "message"), where)
	return nil
}

// openLines opens the file, or copies the standard input to a temporary one, since it is read twice.
func openLines(cmd *cobra.Command, path string) (f *os.File, done func(), err error) {
	if path != "-" {
		f, err := os.Open(path)
		return f, func() { _ = f.Close() }, err
	}
	if f, err = os.CreateTemp("", "natsrelay-replay-*.jsonl"); err != nil {
		return nil, nil, err
	}
	done = func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	if _, err := io.Copy(f, cmd.InOrStdin()); err != nil {
		done()
		return nil, nil, fmt.Errorf("standard input: %w", err)
	}
	return f, done, nil
}

// replayOptions are for putting messages into the spool of a stopped relay: a sixteenth of what the route may have is left for what comes, as
// where it runs, or the next start would give the oldest messages up. Without a configuration all of the file system may be used.
func replayOptions(configured map[string]config.Buffer, route string) spool.Options {
	o := spool.Options{MaxBytes: math.MaxInt64, Sync: spool.SyncNever}
	buffer := configured[route]
	o.MinFree = buffer.MinFree
	if buffer.Disk > 0 { // or else the route only empties its spool
		o.MaxBytes = buffer.Disk - buffer.Disk/16
	}
	return o
}

// replay writes the messages of f, so many, to the spool of a stopped relay.
func replay(cmd *cobra.Command, dir string, o spool.Options, name string, f io.ReadSeeker, total int) (written int, err error) {
	s, err := spool.Open(dir, o)
	if err != nil {
		return 0, err
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
		return w.written, fmt.Errorf("after %s of %d were written: %w", count(w.written, "message"), total, err)
	}
	return w.written, nil
}

// replayRunning sends the messages of f to the running relay.
func replayRunning(cmd *cobra.Command, client *admin.Client, route string, f io.ReadSeeker) (int, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return 0, err
	}
	bar := newProgress(cmd.ErrOrStderr(), "replaying", "bytes")
	defer bar.end()
	return client.ReplaySpool(cmd.Context(), route, &countedReader{f, func(n int64) { bar.set(n, size) }, 0})
}

// countedReader tells how much has been read of it. It is no more than a reader, or the HTTP client would use what else a file can do.
type countedReader struct {
	in   io.Reader
	tell func(n int64)
	n    int64
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	r.n += int64(n)
	r.tell(r.n)
	return n, err
}

// replayWriter appends messages to a spool in batches.
type replayWriter struct {
	spool   *spool.Spool
	batch   []spool.Record
	written int
}

func (w *replayWriter) add(m *relay.Stored) error {
	m.Late = true
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
