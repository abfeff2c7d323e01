package main

import (
	"errors"
	"fmt"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
)

func newDrop(s shelf) *cobra.Command {
	target := spoolTarget{shelf: s}
	var yes bool
	cmd := &cobra.Command{
		Use:     "drop ROUTE --yes",
		Short:   "Delete all that a route has there",
		Long:    "A running relay goes on with what it is just delivering, or about to, and deletes the rest.",
		Example: "$ natsrelay " + s.command + " drop orders --yes",
		Args:    exactArguments("ROUTE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return target.workOn(cmd.Context(), args[0], func(dir string) error {
				report, err := spool.Inspect(dir)
				if newer, ok := errors.AsType[*spool.VersionError](err); ok && yes {
					fmt.Fprintf(cmd.ErrOrStderr(), "deleting what this version cannot read: %s\n", newer.File)
				} else if err != nil {
					return err
				}
				n := report.Stats.Records
				return drop(cmd, s, args[0], n, yes, func() (int, error) { return n, spool.Remove(dir) })
			}, func(client *admin.Client) error {
				held, err := holding(cmd.Context(), client, s, args[0])
				if err != nil {
					return err
				}
				return drop(cmd, s, args[0], held.Messages, yes, func() (int, error) { return client.Drop(cmd.Context(), s.command, args[0]) })
			})
		},
	}
	target.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "really delete them")
	return cmd
}

// drop deletes the n messages of a route, if that is what is wanted, and says how many those were.
func drop(cmd *cobra.Command, s shelf, route string, n int, yes bool, do func() (int, error)) error {
	if !yes {
		return withStatus(withHints(fmt.Errorf("this would delete %s for good", count(n, "message")),
			"natsrelay "+s.command+" export "+route+" FILE keeps them; add --yes to delete them"), exitUsage)
	}
	n, err := do()
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s deleted\n", count(n, "message"))
	return nil
}
