package main

import (
	"context"
	"fmt"
	"io"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
)

func newSpoolVerify() *cobra.Command {
	target := spoolTarget{shelf: spools()}
	cmd := &cobra.Command{
		Use:     "verify ROUTE",
		Short:   "Read every byte of a spool and report what is damaged; changes nothing",
		Example: "$ natsrelay spool verify orders",
		Args:    exactArguments("ROUTE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return target.withRoute(args[0], func(dir string) error {
				report, err := examine(cmd, dir, "verifying", spool.Verify)
				if err == nil && len(report.Damage) > 0 {
					err = withHints(fmt.Errorf("the spool is damaged: %s", damageOf(report)),
						"the relay delivers the rest as it is; natsrelay spool repair "+args[0]+" writes the damaged segments anew")
				}
				return err
			})
		},
	}
	target.flags(cmd)
	return cmd
}

func newSpoolRepair() *cobra.Command {
	target := spoolTarget{shelf: spools()}
	cmd := &cobra.Command{
		Use:     "repair ROUTE",
		Short:   "Write damaged segments anew, with all that is whole; the damaged bytes are kept in damaged/",
		Example: "$ natsrelay spool repair orders",
		Args:    exactArguments("ROUTE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return target.withRoute(args[0], func(dir string) error {
				_, err := examine(cmd, dir, "repairing", spool.Repair)
				return err
			})
		},
	}
	target.flags(cmd)
	return cmd
}

// examine runs a check of the whole spool with its progress shown, and prints what it found.
func examine(cmd *cobra.Command, dir, doing string, check func(context.Context, string, func(done, total int64)) (spool.Report, error)) (spool.Report, error) {
	bar := newProgress(cmd.ErrOrStderr(), doing, "bytes")
	report, err := check(cmd.Context(), dir, bar.set)
	bar.end()
	if err != nil {
		return report, err
	}
	printReport(cmd.OutOrStdout(), report)
	return report, nil
}

func printReport(out io.Writer, r spool.Report) {
	for _, d := range r.Damage {
		fmt.Fprintln(out, d)
	}
	fmt.Fprintf(out, "%s in %s, damage: %s\n", count(r.Stats.Records, "message"), count(r.Stats.Segments, "segment"), damageOf(r))
}
