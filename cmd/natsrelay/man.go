package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man [COMMAND]",
		Short: "Print the manual page of natsrelay, or of one of its commands",
		Example: `$ natsrelay man | man -l -
$ natsrelay man spool ls | man -l -
$ natsrelay man > /usr/local/share/man/man1/natsrelay.1`,
		Args: namesCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			page, _, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			page.InitDefaultHelpFlag()
			page.DisableAutoGenTag = true // no day of printing
			return doc.GenMan(page, &doc.GenManHeader{Section: "1", Source: "natsrelay " + buildVersion(), Manual: "natsrelay"}, cmd.OutOrStdout())
		},
	}
}
