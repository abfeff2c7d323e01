package admin

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/natsrelay/natsrelay/relay"
)

// livez says that the process answers, and no more: what a restart would not mend is for readyz.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "ok\n")
}

// readyz says whether each route does its work, and if not, why. Those who do not know the token are not told why.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	routes, ready := s.opts.Relay.Status(), !s.opts.Relay.Stopping()
	for _, route := range routes {
		ready = ready && len(troubles(route)) == 0
	}
	word := "ready"
	if !ready {
		word = "not ready"
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = fmt.Fprintln(w, word)
	if s.knows(r) {
		s.explain(w, routes)
	}
}

func (s *Server) explain(w io.Writer, routes []relay.RouteStatus) {
	if s.opts.Relay.Stopping() {
		_, _ = fmt.Fprintln(w, stopping)
	}
	for _, route := range routes {
		reasons := troubles(route)
		if len(reasons) == 0 {
			reasons = []string{string(route.Stats.State)}
		}
		for _, reason := range reasons {
			_, _ = fmt.Fprintf(w, "%s: %s\n", route.Name, reason)
		}
	}
}

const stopping = "the relay is stopping"

// troubles returns why a route is not ready; nothing if it is. That is a matter of what gets done: a route that catches up with its
// backlog is ready, and one whose connections all stand is not, if it does not move.
func troubles(r relay.RouteStatus) []string {
	s := r.Stats
	var why []string
	switch {
	case r.Err != nil:
		return []string{fmt.Sprintf("cannot be opened: %v", r.Err)}
	case s.State == relay.StateStarting:
		return []string{withCause("starting", cmp.Or(s.SourceTrouble, relay.ErrStarting))}
	case s.State == relay.StateStopped:
		return []string{"stopped"}
	case s.State == relay.StateFull:
		why = append(why, "full: messages are being given up, or the source is held back")
	case s.State == relay.StateBlocked && s.SinkTrouble == nil:
		why = append(why, "blocked: somebody has to mend the source")
	}
	if s.Paused {
		why = append(why, "paused: somebody has to resume it")
	}
	if s.SinkTrouble != nil {
		why = append(why, withCause(sinkState(s.State), s.SinkTrouble))
	}
	if s.DiskTrouble != nil {
		why = append(why, withCause("disk: nothing can be written to it, messages are in memory alone", s.DiskTrouble))
	}
	if s.SourceTrouble != nil {
		why = append(why, withCause("source: nothing arrives", s.SourceTrouble))
	}
	if s.Stalled != "" {
		why = append(why, "stalled: "+s.Stalled)
	}
	return why
}

// sinkState says what it means for the route that the sink fails, or the store of dead letters: the cause says which.
func sinkState(s relay.State) string {
	switch s {
	case relay.StateBlocked:
		return "blocked: somebody has to mend it"
	case relay.StateSpilling:
		return "spilling: messages go to disk"
	case relay.StateRetrying:
		return "retrying"
	}
	return "failing"
}

func withCause(what string, err error) string {
	if err == nil {
		return what
	}
	return what + ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
}
