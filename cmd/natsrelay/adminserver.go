package main

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"runtime/debug"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/config"
)

// listenAdmin opens the address of the admin server, before the relay starts: it must not run where nobody can look after it.
// nil: there is none.
func listenAdmin(ctx context.Context, cfg *config.Config) (net.Listener, error) {
	if cfg.Admin.Listen == "" {
		return nil, nil
	}
	l, err := admin.Listen(ctx, cfg.Admin.Listen)
	if err != nil {
		return nil, withHints(fmt.Errorf("admin server: %w", err), `give [admin] a listen address of its own, or listen = "" for none`)
	}
	return l, nil
}

// serveAdmin starts the admin server of svc on l, if there is one, and returns a function that ends it.
func serveAdmin(l net.Listener, svc *service, reload func(context.Context) error) (end func()) {
	if l == nil {
		return func() {}
	}
	cfg := svc.cfg // what of it goes into the options cannot change while the relay runs
	live := func(s shelf) liveShelf {
		return liveShelf{shelf: s, stateDir: cfg.StateDir, relay: svc.relay, log: svc.log}
	}
	s := admin.NewServer(admin.Options{
		Token:        cfg.Admin.Token.Reveal(),
		Build:        buildOf(),
		Instance:     cfg.Instance,
		StateDir:     cfg.StateDir,
		Log:          svc.log,
		Relay:        svc.relay,
		Connections:  svc.conns.status,
		Reload:       reload,
		ReloadFailed: svc.reloadFailed.Load,
		Spool:        &liveSpool{live(spools())},
		Dead:         &liveDead{live(deadLetters())},
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Serve(l); err != nil {
			svc.log.Error().Err(err).Msg("the admin server has ended, the relay goes on without it")
		}
	}()
	svc.log.Info().Str("listen", l.Addr().String()).Msg("admin server: health, metrics, status")
	return func() {
		s.Close()
		<-ended
	}
}

// buildOf returns what is known of this build.
func buildOf() admin.Build {
	b := admin.Build{Version: "(unknown)", Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Version, b.Revision = versionOf(info)
	}
	return b
}
