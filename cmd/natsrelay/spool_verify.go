package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/natsrelay/natsrelay/admin"
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
			bar := newProgress(cmd.ErrOrStderr(), "verifying", "bytes")
			defer bar.end()
			var report admin.Report
			err := target.workOn(cmd.Context(), args[0], func(dir string) error {
				found, err := spool.Verify(cmd.Context(), dir, bar.set)
				report = reportOf(found)
				return err
			}, func(client *admin.Client) (err error) {
				report, err = client.Verify(cmd.Context(), args[0], bar.set)
				return err
			})
			if err != nil {
				return err
			}
			bar.end()
			printReport(cmd.OutOrStdout(), report)
			if len(report.Damage) > 0 {
				return withHints(fmt.Errorf("the spool is damaged: %s", damageIn(report)),
					"the relay delivers the rest as it is; natsrelay spool repair "+args[0]+" writes the damaged segments anew, while it is stopped")
			}
			return nil
		},
	}
	target.flags(cmd)
	return cmd
}

func newSpoolRepair() *cobra.Command {
	target := spoolTarget{shelf: spools()}
	cmd := &cobra.Command{
		Use:     "repair ROUTE",
		Short:   "Write damaged segments of a stopped relay anew, with all that is whole",
		Long:    "The damaged bytes are kept beside them, in damaged/.",
		Example: "$ natsrelay spool repair orders",
		Args:    exactArguments("ROUTE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			bar := newProgress(cmd.ErrOrStderr(), "repairing", "bytes")
			defer bar.end()
			return target.workOn(cmd.Context(), args[0], func(dir string) error {
				report, err := spool.Repair(cmd.Context(), dir, bar.set)
				bar.end()
				if err == nil {
					printReport(cmd.OutOrStdout(), reportOf(report))
				}
				return err
			}, func(*admin.Client) error {
				return withHints(errors.New("the relay is running, and only a stopped one's spool can be repaired"),
					"there is no hurry: a relay delivers what is whole, and sets aside what is not, as it comes to it")
			})
		},
	}
	target.flags(cmd)
	return cmd
}

func printReport(out io.Writer, r admin.Report) {
	for _, d := range r.Damage {
		fmt.Fprintln(out, d)
	}
	fmt.Fprintf(out, "%s in %s, damage: %s\n", count(r.Messages, "message"), count(r.Segments, "segment"), damageIn(r))
}

// damageIn says in a word what a report has found.
func damageIn(r admin.Report) string {
	if len(r.Damage) == 0 {
		return "none"
	}
	return fmt.Sprintf("%s, %s lost", count(len(r.Damage), "place"), count(r.Lost, "message"))
}
