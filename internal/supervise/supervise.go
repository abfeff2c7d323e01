package supervise

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/relay"
)

const (
	// look is how often the relay is looked at.
	look = time.Second
	// comeUp is how long the routes have for coming up, or for saying why they do not. A large backlog on a slow disk may take longer:
	// that is no reason to keep a machine from booting.
	comeUp = 30 * time.Second
)

// Options say what is supervised, and who wants to know.
type Options struct {
	Status func() []relay.RouteStatus
	// Reload reads the configuration again and applies it. An error says that the one before stays in force.
	Reload func(context.Context) error
	// Notify takes lines as of sd_notify(3). nil: nobody wants to know.
	Notify func(lines string) error
	// Watchdog is how soon the service manager wants to hear from the relay again each time, or it restarts it; 0: it does not.
	Watchdog time.Duration
	Log      zerolog.Logger
}

// A Supervisor watches one relay for one service manager.
type Supervisor struct {
	opts    Options
	reloads *reloads

	mu       sync.Mutex // guards what has been said, and keeps it in order
	phase    phase
	status   string // the last STATUS=
	failed   string // what the status begins with after a reload that has failed
	starving bool   // the watchdog is not fed
}

// phase is what the service manager has been told last.
type phase uint8

const (
	starting phase = iota
	ready
	reloading
	stopping
)

// New returns a supervisor. Nothing happens before Run.
func New(o Options) *Supervisor {
	s := &Supervisor{opts: o}
	s.reloads = newReloads(s.reload)
	return s
}

// Run supervises until ctx ends.
func (s *Supervisor) Run(ctx context.Context) {
	var reloads sync.WaitGroup
	reloads.Go(func() { s.reloads.run(ctx) }) // beside the looking: it may take as long as a drain
	defer reloads.Wait()
	every := look
	if s.opts.Watchdog > 0 {
		every = min(every, s.opts.Watchdog/4)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for began := time.Now(); ; {
		s.look(time.Since(began))
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// RequestReload asks for a reload and does not wait for it.
func (s *Supervisor) RequestReload() { s.reloads.ask() }

// Reload asks for a reload and waits for its outcome, or for the end of ctx, with which the reload itself does not end.
func (s *Supervisor) Reload(ctx context.Context) error {
	return s.reloads.wait(ctx, s.reloads.ask())
}

// Stopping tells that the relay has begun to stop.
func (s *Supervisor) Stopping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = stopping
	s.say(daemon.SdNotifyStopping, "stopping: deliveries under way get their time, the rest goes to disk")
}

// look tells how the relay is. elapsed is since the start.
func (s *Supervisor) look(elapsed time.Duration) {
	routes := s.opts.Status() // it takes the locks of all routes: where one is held for ever, the watchdog hears no more
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == starting {
		s.comeUp(routes, elapsed)
	}
	if s.phase == ready {
		s.say("", s.failed+describe(routes))
	}
	s.feed(routes)
}

// comeUp says that the relay is ready when each route has come up, or has a reason not to.
func (s *Supervisor) comeUp(routes []relay.RouteStatus, elapsed time.Duration) {
	for _, r := range routes {
		if !settled(r) && elapsed < comeUp {
			s.say("", "starting: "+describe(routes))
			return
		}
	}
	s.phase = ready
	s.opts.Log.Info().Str("status", describe(routes)).Dur("after", elapsed.Round(time.Millisecond)).Msg("started")
	s.say(daemon.SdNotifyReady, describe(routes))
}

// feed feeds the watchdog unless a route has stalled. A relay that stops has a limit of its own at the service manager.
func (s *Supervisor) feed(routes []relay.RouteStatus) {
	if s.opts.Watchdog == 0 {
		return
	}
	route, why := stalled(routes)
	starving := route != "" && s.phase != stopping
	if starving && !s.starving {
		s.opts.Log.Error().Str("route", route).Str("why", why).Dur("within", s.opts.Watchdog).
			Msg("the watchdog is not fed while a route is stalled: the service manager will restart the relay")
	}
	s.starving = starving
	if !starving {
		s.notify(daemon.SdNotifyWatchdog)
	}
}

// reload does one reload, and tells of it.
func (s *Supervisor) reload(ctx context.Context) error {
	s.begin()
	err := s.opts.Reload(ctx)
	s.end(err)
	return err
}

func (s *Supervisor) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == ready {
		s.phase = reloading
		s.say(daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec(), "reloading the configuration")
	}
}

func (s *Supervisor) end(err error) {
	routes := s.opts.Status()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = ""
	if err != nil {
		s.failed = "the last reload failed, see the log; "
	}
	if s.phase == reloading {
		s.phase = ready
		s.say(daemon.SdNotifyReady, s.failed+describe(routes))
	}
}

// say tells the service manager what has happened, "" if nothing, and how the relay is, if that is new.
func (s *Supervisor) say(event, status string) {
	status = oneLine(status)
	if event == "" && status == s.status {
		return
	}
	s.status = status
	s.notify(strings.TrimLeft(strings.TrimRight(event, "\n")+"\nSTATUS="+status, "\n"))
}

func (s *Supervisor) notify(lines string) {
	if s.opts.Notify == nil {
		return
	}
	if err := s.opts.Notify(lines); err != nil {
		s.opts.Log.Debug().Err(err).Msg("cannot reach the service manager")
	}
}
