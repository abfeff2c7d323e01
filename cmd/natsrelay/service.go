package main

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/rs/zerolog"
)

// A service is a relay that runs, with what it needs to become another one.
type service struct {
	path  string // of the configuration
	cfg   *config.Config
	log   zerolog.Logger
	conns *connections
	relay *relay.Relay

	reloadFailed atomic.Bool // the last one
}

// startService starts a relay, which ends as relay.Start says.
func startService(ctx context.Context, path string, cfg *config.Config, log zerolog.Logger) *service {
	s := &service{path: path, cfg: cfg, log: log, conns: newConnections(log)}
	s.relay = relay.Start(ctx, s.plan(cfg), log)
	return s
}

func (s *service) plan(cfg *config.Config) relay.Plan {
	w := &wiring{cfg: cfg, log: s.log, conns: s.conns}
	return w.plan()
}

// reload reads the configuration again, with the secrets that it names, and makes it the relay's. If anything is wrong with it, nothing
// changes. It is never called twice at a time.
func (s *service) reload(context.Context) (err error) {
	defer func() { s.reloadFailed.Store(err != nil) }()
	s.log.Info().Str("config", s.path).Msg("reloading the configuration")
	next, err := config.Load(s.path, config.OS())
	if err != nil {
		s.refuse(err)
		return err
	}
	for _, key := range next.KeepFixed(s.cfg) {
		s.log.Warn().Str("key", key).Msg("this cannot change while the relay runs: restart it; the rest of the configuration is applied")
	}
	if err := setLogLevel(next.Log.Level); err != nil {
		return err
	}
	changes := s.relay.Apply(s.plan(next))
	s.cfg = next
	reportOrphans(next, s.log)
	s.log.Info().Strs("added", changes.Added).Strs("changed", changes.Changed).Strs("removed", changes.Removed).Strs("unchanged", changes.Unchanged).
		Msg("the new configuration is in force")
	return nil
}

// refuse logs everything that is wrong with a new configuration.
func (s *service) refuse(err error) {
	problems, ok := errors.AsType[config.Errors](err)
	if !ok {
		s.log.Error().Err(err).Msg("the configuration cannot be reloaded, the one before stays in force")
		return
	}
	for _, p := range problems {
		s.log.Error().Stringer("problem", p).Msg("the new configuration is wrong")
	}
	s.log.Error().Str("config", s.path).Int("problems", len(problems)).Msg("the new configuration is refused, the one before stays in force")
}
