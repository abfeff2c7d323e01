package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

const (
	stateEvery  = 250 * time.Millisecond // how often the states are looked at
	statusEvery = 2 * time.Second        // how often everything is sent
)

// StateChange is one change of a route's state: an event "state". From or To is "" if the route was not there, or is not any more.
type StateChange struct {
	Time     time.Time   `json:"time"`
	Route    string      `json:"route"`
	From     relay.State `json:"from"`
	To       relay.State `json:"to"`
	Troubles []string    `json:"troubles"`
}

// events sends the Status at once and every two seconds (event "status"), and each change of a state (event "state"), until the
// client or the server goes. https://html.spec.whatwg.org/multipage/server-sent-events.html
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	st, ok := s.openStream(w, r)
	if !ok {
		return
	}
	defer st.close()
	w.Header().Set("Content-Type", "text/event-stream")
	ticker := time.NewTicker(stateEvery)
	defer ticker.Stop()
	states := map[string]RouteStatus{}
	var due time.Time // of the next status
	for {
		status := s.snapshot()
		var err error
		for _, change := range changes(states, status) {
			if !due.IsZero() { // the first status says it all
				err = st.event("state", change)
			}
		}
		if err == nil && !status.Time.Before(due) {
			due = status.Time.Add(statusEvery)
			err = st.event("status", status)
		}
		if err != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
	}
}

// changes compares the status with the one before, and makes that the one before.
func changes(before map[string]RouteStatus, status *Status) (all []StateChange) {
	now := map[string]bool{}
	for _, r := range status.Routes {
		now[r.Name] = true
		if was := before[r.Name].State; was != r.State {
			all = append(all, StateChange{status.Time, r.Name, was, r.State, r.Troubles})
		}
		before[r.Name] = r
	}
	for name, was := range before {
		if !now[name] {
			all = append(all, StateChange{status.Time, name, was.State, "", []string{}})
			delete(before, name)
		}
	}
	return all
}

// event sends one event.
func (st *stream) event(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(st, "event: %s\ndata: %s\n\n", name, data); err != nil {
		return err
	}
	return st.flush()
}
