package main

import (
	"context"
	"errors"
	"io"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
)

func newRun() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run [-c FILE]",
		Short: "Run the relay",
		Long: `It logs to stderr. INT or TERM stop it in order: sources first, then deliveries for at most drain_timeout, then the rest
goes to disk. A second one stops it at once, with what is in memory put on disk.`,
		Example: "$ natsrelay run -c relay.toml",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, path, err := loadConfig(path)
			if err != nil {
				return err
			}
			return runRelay(cmd.Context(), cfg, path, cmd.ErrOrStderr())
		},
	}
	configFlag(cmd, &path)
	return cmd
}

// runRelay runs the relay until it is told to stop.
func runRelay(ctx context.Context, cfg *config.Config, path string, stderr io.Writer) (err error) {
	log, err := newLogger(cfg.Log, stderr)
	if err != nil {
		return err
	}
	lock, err := spool.LockDir(cfg.StateDir)
	if err != nil {
		return lockFailure(err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()

	log.Info().Str("version", buildVersion()).Str("config", path).Str("state_dir", cfg.StateDir).Str("instance", cfg.Instance).Msg("starting")
	reportOrphans(cfg, log)
	defer log.Info().Msg("stopped")
	listener, err := listenAdmin(ctx, cfg)
	if err != nil {
		return err
	}
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	w := &wiring{cfg: cfg, log: log, conns: newConnections(log)}
	r := relay.Start(ctx, w.plan(), log)
	defer serveAdmin(listener, cfg, r, w.conns, log)()
	defer onSignals(log, r.Stop, cut)()
	return r.Wait()
}

func lockFailure(err error) error {
	if _, ok := errors.AsType[*spool.LockedError](err); ok {
		return withHints(err, "stop that one first, or give this one a state_dir of its own")
	}
	return err
}
