package main

import (
	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/rs/zerolog"
)

// reportOrphans logs what is on disk of routes that the configuration does not run: nobody delivers it. The caller
// holds the lock of the state directory.
func reportOrphans(cfg *config.Config, log zerolog.Logger) {
	running := map[string]bool{}
	for _, r := range cfg.Routes {
		running[r.Name] = r.Enabled
	}
	names, err := spools().routes(cfg.StateDir)
	if err != nil {
		log.Warn().Err(err).Msg("cannot look for spools of routes that do not run")
	}
	for _, name := range names {
		if running[name] {
			continue
		}
		log := log.With().Str("route", name).Logger()
		found, err := spool.Inspect(spoolDir(cfg.StateDir, name))
		switch {
		case err != nil:
			log.Warn().Err(err).Msg("cannot look into the spool of a route that does not run")
		case found.Stats.Records > 0:
			log.Warn().Int("messages", found.Stats.Records).Time("oldest", found.Stats.Oldest).
				Msg("messages on disk of a route that does not run stay there: configure it, or see `natsrelay spool`")
		}
	}
}
