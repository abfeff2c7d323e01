package admin

import (
	"encoding/json"
	"net/http"
	"os"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

// Status is how a relay stands: the answer to GET /api/v1/status.
type Status struct {
	Instance string    `json:"instance"`
	Build    Build     `json:"build"`
	PID      int       `json:"pid"`
	StateDir string    `json:"state_dir"`
	Began    time.Time `json:"began"`
	Time     time.Time `json:"time"`
	Ready    bool      `json:"ready"`
	Stopping bool      `json:"stopping"`

	ReloadFailed bool `json:"reload_failed"` // the last one: the configuration before it is in force

	Routes      []RouteStatus      `json:"routes"`
	Connections []ConnectionStatus `json:"connections"`
}

// RouteStatus is how one route stands. Counters start at zero with the process.
type RouteStatus struct {
	Name     string      `json:"name"`
	State    relay.State `json:"state"`
	Ready    bool        `json:"ready"`
	Troubles []string    `json:"troubles"` // why it is not ready
	Paused   bool        `json:"paused"`

	Received       uint64            `json:"received"`
	Delivered      uint64            `json:"delivered"`
	DeliveredBytes uint64            `json:"delivered_bytes"`
	AttemptsOK     uint64            `json:"attempts_ok"`
	AttemptsFailed uint64            `json:"attempts_failed"`
	Dropped        map[string]uint64 `json:"dropped"`      // by reason, without what was left out
	LeftOut        map[string]uint64 `json:"left_out"`     // by filters and samples
	DeadLetters    map[string]uint64 `json:"dead_letters"` // by reason
	DeadStored     int               `json:"dead_letters_stored"`
	Spilled        uint64            `json:"spilled"`
	Corrupt        uint64            `json:"corrupt_records"`

	Memory           Depth   `json:"memory"`
	Disk             Depth   `json:"disk"` // what is in memory, too, is in both
	OldestAgeSeconds float64 `json:"oldest_age_seconds"`
	SourcePending    *uint64 `json:"source_pending"` // null: not known
}

// Depth is how much waits.
type Depth struct {
	Messages int   `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

// ConnectionStatus is how all connections of one [nats.NAME] stand.
type ConnectionStatus struct {
	Name       string            `json:"name"`
	Connected  bool              `json:"connected"`
	Trouble    string            `json:"trouble,omitempty"`
	Reconnects uint64            `json:"reconnects"`
	Errors     map[string]uint64 `json:"errors"` // by kind
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.snapshot())
}

// snapshot asks everybody.
func (s *Server) snapshot() *Status {
	o := &s.opts
	st := &Status{
		Instance: o.Instance, Build: o.Build, PID: os.Getpid(), StateDir: o.StateDir, Began: s.began.UTC(), Time: time.Now().UTC(),
		Stopping: o.Relay.Stopping(), ReloadFailed: o.ReloadFailed(), Routes: []RouteStatus{}, Connections: []ConnectionStatus{},
	}
	st.Ready = !st.Stopping
	for _, r := range o.Relay.Status() {
		route := routeStatus(r)
		st.Routes = append(st.Routes, route)
		st.Ready = st.Ready && route.Ready
	}
	for _, c := range merge(o.Connections()) {
		conn := ConnectionStatus{Name: c.Name, Connected: c.Connected, Reconnects: c.Reconnects, Errors: c.Errors}
		if c.Failure != nil {
			conn.Trouble = c.Failure.Error()
		}
		st.Connections = append(st.Connections, conn)
	}
	return st
}

func routeStatus(r relay.RouteStatus) RouteStatus {
	s := r.Stats
	why := troubles(r)
	st := RouteStatus{
		Name: r.Name, State: s.State, Ready: len(why) == 0, Troubles: append([]string{}, why...), Paused: s.Paused,
		Received: s.Received, Delivered: s.Delivered, DeliveredBytes: s.DeliveredBytes, AttemptsOK: s.AttemptsOK, AttemptsFailed: s.AttemptsFailed,
		Dropped: map[string]uint64{}, LeftOut: map[string]uint64{}, DeadLetters: s.DeadLetters, DeadStored: s.DeadLettersStored,
		Spilled: s.Spilled, Corrupt: s.Corrupt,
		Memory: Depth{s.MemoryMessages, s.MemoryBytes}, Disk: Depth{s.DiskMessages, s.DiskBytes}, OldestAgeSeconds: s.OldestAge.Seconds(),
	}
	for reason, n := range s.Dropped {
		if reason == relay.DropFiltered || reason == relay.DropSample {
			st.LeftOut[reason] = n
		} else {
			st.Dropped[reason] = n
		}
	}
	if s.PendingKnown {
		st.SourcePending = &s.Pending
	}
	return st
}

// writeJSON answers with v. What cannot be written any more is the client's loss.
func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
}

// A failure is what the API answers when it does not do what it was asked.
type failure struct {
	Error string `json:"error"`
}

func writeError(w http.ResponseWriter, code int, err error) {
	writeJSON(w, code, failure{err.Error()})
}
