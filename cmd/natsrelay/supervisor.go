package main

import (
	"context"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/natsrelay/natsrelay/internal/memlimit"
	"github.com/natsrelay/natsrelay/internal/supervise"
	"github.com/rs/zerolog"
)

// newSupervisor returns what tells systemd, if it has started the relay, how that is.
func newSupervisor(s *service) *supervise.Supervisor {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn().Err(err).Msg("no watchdog: the environment has none that can be read")
	}
	return supervise.New(supervise.Options{
		Status: s.relay.Status,
		Reload: s.reload,
		Notify: func(lines string) error {
			_, err := daemon.SdNotify(false, lines) // false, nil: nobody has asked for it
			return err
		},
		Watchdog: watchdog,
		Log:      s.log,
	})
}

// followMemoryLimit keeps the garbage collector within the limit that the system sets, unless the user has set one.
func followMemoryLimit(ctx context.Context, log zerolog.Logger) {
	if os.Getenv("GOMEMLIMIT") == "" {
		go memlimit.Follow(ctx, os.DirFS("/"), log)
	}
}

// inBackground runs fn until the function that it returns is called, which waits for its end.
func inBackground(fn func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		fn(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}
