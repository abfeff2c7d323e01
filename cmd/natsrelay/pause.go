package main

import (
	"context"
	"fmt"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/spf13/cobra"
)

func newPause() *cobra.Command {
	return newControl("pause", "Stop the deliveries of a route of the running relay",
		`What is under way finishes; what comes is buffered, and goes to disk as if the sink failed. The pause ends with natsrelay resume,
or with the process.`, (*admin.Client).Pause)
}

func newResume() *cobra.Command {
	return newControl("resume", "Start the deliveries of a paused route again", "", (*admin.Client).Resume)
}

// newControl returns a command that does something to a route of the running relay.
func newControl(name, short, long string, do func(*admin.Client, context.Context, string) (*admin.RouteStatus, error)) *cobra.Command {
	var target relayTarget
	cmd := &cobra.Command{
		Use:     name + " ROUTE",
		Short:   short,
		Long:    long,
		Example: "$ natsrelay " + name + " orders",
		Args:    exactArguments("ROUTE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRouteName(args[0]); err != nil {
				return err
			}
			client, err := target.client()
			if err != nil {
				return err
			}
			route, err := do(client, cmd.Context(), args[0])
			if err != nil {
				return advised(err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is %s, %s\n", route.Name, route.State, waiting(route))
			return err
		},
	}
	target.flags(cmd)
	return cmd
}
