package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
)

func newRun() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run [-c FILE]",
		Short: "Run the relay",
		Long: `It logs to stderr. INT or TERM stop it in order: sources first, then deliveries for at most drain_timeout, then the rest
goes to disk. A second one stops it at once, with what is in memory put on disk. HUP reads the configuration again: if it is right,
what has changed in it is applied, and routes that have not changed go on undisturbed; if not, nothing changes, and the log says why.`,
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
	signals := catchSignals()
	defer signals.release()
	lock, err := spool.LockDir(cfg.StateDir)
	if err != nil {
		return lockFailure(err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()

	log.Info().Str("version", buildVersion()).Str("config", path).Str("state_dir", cfg.StateDir).Str("instance", cfg.Instance).Msg("starting")
	defer func() { log.Info().Msg("stopped") }()
	reportOrphans(cfg, log)
	listener, err := listenAdmin(ctx, cfg)
	if err != nil {
		return err
	}
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	followMemoryLimit(ctx, log)
	s := startService(ctx, path, cfg, log)
	supervisor := newSupervisor(s)
	defer inBackground(supervisor.Run)()
	defer serveAdmin(listener, s, supervisor.Reload)()
	signals.act(func() {
		supervisor.Stopping()
		s.relay.Stop()
	}, cut, supervisor.RequestReload)
	return s.relay.Wait()
}

func lockFailure(err error) error {
	if _, ok := errors.AsType[*spool.LockedError](err); ok {
		return withHints(err, "stop that one first, or give this one a state_dir of its own")
	}
	return fmt.Errorf("state_dir: %w", err)
}
