package main

import (
	"github.com/natsrelay/natsrelay"
	"github.com/spf13/cobra"
)

func newInit() *cobra.Command {
	return &cobra.Command{
		Use:     "init",
		Short:   "Print a commented configuration to start from",
		Example: "$ natsrelay init > relay.toml",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(natsrelay.ExampleConfig)
			return err
		},
	}
}
