package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signals are those that the relay heeds. They are caught from the start, so that none of them ends a relay that is only
// about to run, and acted upon once it does.
type signals struct {
	caught chan os.Signal
	acting sync.WaitGroup
}

func catchSignals() *signals {
	s := &signals{caught: make(chan os.Signal, 4)}
	signal.Notify(s.caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	// Go ends a process that writes to a stderr that nobody reads any more, even where systemd has had the signal ignored. A journald
	// that crashes must cost the log, not what the relay has in memory.
	signal.Ignore(syscall.SIGPIPE)
	return s
}

// act calls first at the first INT or TERM, second at the next one, and reload at each HUP, until release. It does not wait.
func (s *signals) act(first, second, reload func()) {
	s.acting.Go(func() {
		next := first
		for sig := range s.caught {
			if sig == syscall.SIGHUP {
				reload()
				continue
			}
			next()
			next = second
		}
	})
}

// release gives the signals back.
func (s *signals) release() {
	signal.Reset(syscall.SIGPIPE)
	signal.Stop(s.caught)
	close(s.caught)
	s.acting.Wait()
}
