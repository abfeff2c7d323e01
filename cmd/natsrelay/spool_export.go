package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
)

func newExport(s shelf) *cobra.Command {
	target := spoolTarget{shelf: s}
	cmd := &cobra.Command{
		Use:   "export ROUTE FILE",
		Short: "Write the messages to a new file, as JSON lines; they stay where they are",
		Long:  "FILE - is the standard output. The file can be put into a spool with `natsrelay spool replay`.",
		Example: fmt.Sprintf(`$ natsrelay %s export orders orders.jsonl
$ natsrelay %[1]s drop orders --yes`, s.command),
		Args: exactArguments("ROUTE", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return target.workOn(cmd.Context(), args[0], func(dir string) error {
				return export(cmd, args[1], func(out io.Writer, bar *progress) (int, error) {
					report, err := spool.Inspect(dir)
					if err != nil {
						return 0, err
					}
					return writeMessages(cmd.Context(), out, dir, relay.Selection{}, func(read int) { bar.set(int64(read), int64(report.Stats.Records)) })
				})
			}, func(client *admin.Client) error {
				held, err := holding(cmd.Context(), client, s, args[0])
				if err != nil {
					return err
				}
				return export(cmd, args[1], func(out io.Writer, bar *progress) (int, error) {
					return client.Messages(cmd.Context(), s.command, args[0], relay.Selection{}, out, func(n int) { bar.set(int64(n), int64(held.Messages)) })
				})
			})
		},
	}
	target.flags(cmd)
	return cmd
}

// export writes what write writes to a new file, and says how many messages that were.
func export(cmd *cobra.Command, path string, write func(out io.Writer, bar *progress) (int, error)) (err error) {
	out := cmd.OutOrStdout()
	if path != "-" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) {
			return withHints(fmt.Errorf("%s exists already", path), "an export writes a new file only; remove it, or choose another name")
		}
		if err != nil {
			return err
		}
		// What follows an export is often a drop: the file must be as safe as the spool was.
		defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
		out = f
	}
	bar := newProgress(cmd.ErrOrStderr(), "exporting", "messages")
	n, err := write(out, bar)
	bar.end()
	if err != nil {
		return fmt.Errorf("after %s: %w", count(n, "message"), err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s exported\n", count(n, "message"))
	return nil
}
