package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/natsrelay/natsrelay/internal/demo"
	"github.com/spf13/cobra"
)

func newDemo() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo [--duration D] [--outage D] [--rate N]",
		Short: "Watch messages cross a broken link, and a killed relay, without loss",
		Long: `It runs two NATS servers, edge and cloud, an HTTP receiver, and a relay with a route from the edge to each. Messages are
published to the edge at a steady rate. In the middle the receivers go away for a while, and the relay is killed with
SIGKILL and started again while they are gone. The exit status is 0 if nothing was lost and nothing out of order.`,
		Example: "$ natsrelay demo --duration 20s --outage 10s --rate 5000",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Check(); err != nil {
				return withStatus(err, exitUsage)
			}
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program, to run the relay: %w", err)
			}
			o.Exe, o.Out = exe, cmd.OutOrStdout()
			// HUP too: the relay, its child, reloads at that, and would stay behind when the terminal is closed. It would, too, if the demo died of
			// SIGPIPE when nobody reads on (natsrelay demo | head): it ends when it cannot write.
			signal.Ignore(syscall.SIGPIPE)
			defer signal.Reset(syscall.SIGPIPE)
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			return demo.Run(ctx, o)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&o.Duration, "duration", 14*time.Second, "messages are published for this time, `D`")
	flags.DurationVar(&o.Outage, "outage", 6*time.Second, "the receivers are away for this time, `D`, in the middle")
	flags.IntVar(&o.Rate, "rate", 2000, "`N` messages a second")
	flags.BoolVar(&o.Keep, "keep", false, "leave the folder with relay.toml and state behind")
	return cmd
}
