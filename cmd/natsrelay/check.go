package main

import (
	"fmt"
	"strings"

	"github.com/natsrelay/natsrelay/config"
	"github.com/spf13/cobra"
)

func newCheck() *cobra.Command {
	var path string
	var online bool
	cmd := &cobra.Command{
		Use:   "check [-c FILE] [--online]",
		Short: "Check a configuration and print everything that is wrong with it",
		Long: `It reads the file and the secrets that it names, and writes nothing. With --online it also connects to every server that a route
needs, and looks at permissions, streams, consumers and payload limits; it publishes no message, takes none, and creates nothing: what the
user may do is asked of the server, not tried. Its exit status is 1 if something would keep a route from working.`,
		Example: "$ natsrelay check -c relay.toml --online",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, path, err := loadConfig(path)
			if err != nil {
				return err
			}
			if online {
				if err := checkOnline(cmd.Context(), cfg, cmd.OutOrStdout()); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, %s\n", path, describe(cfg.Routes))
			return err
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&online, "online", false, "connect to the servers, too, and look at what is there")
	return cmd
}

// describe sums the routes up in one line.
func describe(routes []*config.Route) string {
	parts := make([]string, len(routes))
	for i, r := range routes {
		parts[i] = fmt.Sprintf("%s (%s → %s)", r.Name, r.Source.Type, r.Sink.Type)
		if !r.Enabled {
			parts[i] = fmt.Sprintf("%s (disabled)", r.Name)
		}
	}
	return count(len(routes), "route") + ": " + strings.Join(parts, ", ")
}
