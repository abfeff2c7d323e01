package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

func (s *Server) pause(w http.ResponseWriter, r *http.Request) { s.control(w, r, (*relay.Route).Pause) }
func (s *Server) resume(w http.ResponseWriter, r *http.Request) {
	s.control(w, r, (*relay.Route).Resume)
}

// control does something to a route, and answers with how it stands then.
func (s *Server) control(w http.ResponseWriter, r *http.Request, do func(*relay.Route)) {
	name := r.PathValue("route")
	route := s.opts.Relay.Route(name)
	if route == nil {
		writeError(w, http.StatusNotFound, fmt.Errorf("no route %q runs here", name))
		return
	}
	do(route)
	writeJSON(w, http.StatusOK, routeStatus(relay.RouteStatus{Name: name, Stats: route.Stats()}))
}

// reload answers when the new configuration is in effect, or says what is wrong with it; then nothing has changed.
func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	s.opts.Log.Info().Msg("asked to reload the configuration")
	rc := http.NewResponseController(w) // it may take as long as routes may take to end
	if err := errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})); err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	if err := s.opts.Reload(context.WithoutCancel(r.Context())); err != nil {
		writeError(w, http.StatusUnprocessableEntity, err)
		return
	}
	writeJSON(w, http.StatusOK, s.snapshot())
}
