package main

import (
	"errors"
	"fmt"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
)

func newDrop(s shelf) *cobra.Command {
	target := spoolTarget{shelf: s}
	var yes bool
	cmd := &cobra.Command{
		Use:     "drop ROUTE --yes",
		Short:   "Delete all that a route has there",
		Example: "$ natsrelay " + s.command + " drop orders --yes",
		Args:    exactArguments("ROUTE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return target.withRoute(args[0], func(dir string) error {
				report, err := spool.Inspect(dir)
				if newer, ok := errors.AsType[*spool.VersionError](err); ok && yes {
					fmt.Fprintf(cmd.ErrOrStderr(), "deleting what this version cannot read: %s\n", newer.File)
				} else if err != nil {
					return err
				}
				lost := count(report.Stats.Records, "message")
				if !yes {
					return withStatus(withHints(fmt.Errorf("this would delete %s for good", lost),
						"natsrelay "+s.command+" export "+args[0]+" FILE keeps them; add --yes to delete them"), exitUsage)
				}
				if err := spool.Remove(dir); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s deleted\n", lost)
				return nil
			})
		},
	}
	target.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "really delete them")
	return cmd
}
