package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
)

// onSignals calls first at the first INT or TERM, and second at the next one. The caller calls
// the function that it returns when neither is wanted any more.
func onSignals(log zerolog.Logger, first, second func()) (done func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		next := first
		for s := range signals {
			if s == syscall.SIGHUP {
				log.Warn().Msg("this version cannot reload its configuration, the signal HUP is ignored")
				continue
			}
			next()
			next = second
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-ended
	}
}
