package admin

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

// storageAPI are the endpoints of what is on disk.
func (s *Server) storageAPI() map[string]http.HandlerFunc {
	api := map[string]http.HandlerFunc{
		"GET /api/v1/routes/{route}/spool/verify":  s.verify,
		"POST /api/v1/routes/{route}/spool/replay": s.replaySpool,
		"POST /api/v1/routes/{route}/dead/replay":  s.replayDead,
	}
	for name, storage := range map[string]Storage{"spool": s.opts.Spool, "dead": s.opts.Dead} {
		api["GET /api/v1/"+name] = func(w http.ResponseWriter, r *http.Request) { holdings(w, r, storage) }
		api["GET /api/v1/routes/{route}/"+name] = func(w http.ResponseWriter, r *http.Request) { s.messages(w, r, storage) }
		api["POST /api/v1/routes/{route}/"+name+"/drop"] = func(w http.ResponseWriter, r *http.Request) { drop(w, r, storage) }
	}
	return api
}

func holdings(w http.ResponseWriter, r *http.Request, storage Storage) {
	all, err := storage.List(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	writeJSON(w, http.StatusOK, all)
}

// messages streams a route's messages as JSON lines, oldest first. What goes wrong on the way is the last line, which has an "error".
func (s *Server) messages(w http.ResponseWriter, r *http.Request, storage Storage) {
	s.inLines(w, r, func(lines *lineWriter) (any, error) {
		which, err := selectionOf(r)
		if err != nil {
			return nil, err
		}
		return nil, storage.Walk(r.Context(), r.PathValue("route"), which, lines.message)
	})
}

// selectionOf reads ?subject=, ?since= (RFC 3339) and ?limit=. Its error is a *Refusal.
func selectionOf(r *http.Request) (which relay.Selection, err error) {
	q := r.URL.Query()
	which.Subject = q.Get("subject")
	if since := q.Get("since"); since != "" {
		if which.After, err = time.Parse(time.RFC3339Nano, since); err != nil {
			return which, badRequest("since %q is not a time such as 2026-11-01T12:00:00Z", since)
		}
	}
	if limit := q.Get("limit"); limit != "" {
		if which.Limit, err = strconv.Atoi(limit); err != nil || which.Limit < 0 {
			return which, badRequest("limit %q is not a number of messages", limit)
		}
	}
	return which, nil
}

func badRequest(format string, args ...any) error {
	return &Refusal{http.StatusBadRequest, fmt.Errorf(format, args...)}
}

func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	s.inLines(w, r, func(lines *lineWriter) (any, error) {
		report, err := s.opts.Spool.Verify(r.Context(), r.PathValue("route"), lines.reporter())
		return Progress{Report: &report}, err
	})
}

func (s *Server) replayDead(w http.ResponseWriter, r *http.Request) {
	s.inLines(w, r, func(lines *lineWriter) (any, error) {
		which, err := selectionOf(r)
		if err != nil {
			return nil, err
		}
		report := lines.reporter()
		moved, err := s.opts.Dead.Replay(r.Context(), r.PathValue("route"), which, func(done, total int) { report(int64(done), int64(total)) })
		if err != nil && moved > 0 {
			err = fmt.Errorf("after %d messages: %w", moved, err)
		}
		return Progress{Moved: &moved}, err
	})
}

// replaySpool reads messages as JSON lines and puts them into the route, a batch at a time. It answers when all are safe there. A line
// that is wrong ends it; what came before stays.
func (s *Server) replaySpool(w http.ResponseWriter, r *http.Request) {
	st, ok := s.openStream(w, r)
	if !ok {
		return
	}
	defer st.close()
	p := &replayer{lines: bufio.NewReaderSize(st, lineBuffer), put: func(batch []*relay.Stored) (int, error) {
		return s.opts.Spool.Replay(r.Context(), r.PathValue("route"), batch)
	}}
	err := p.run()
	st.extend()
	if err != nil {
		if p.safe > 0 {
			err = fmt.Errorf("after %d messages: %w", p.safe, err)
		}
		refuse(w, err)
		_, _ = io.Copy(io.Discard, st) // a client that still writes would see its connection break, and not the answer
		return
	}
	writeJSON(w, http.StatusOK, Progress{Done: int64(p.safe), Total: int64(p.safe), Moved: &p.safe})
}

// drop deletes what a route has, if the body says {"yes": true}.
func drop(w http.ResponseWriter, r *http.Request, storage Storage) {
	var sure struct {
		Yes bool `json:"yes"`
	}
	if err := json.NewDecoder(r.Body).Decode(&sure); err != nil || !sure.Yes {
		writeError(w, http.StatusBadRequest, errors.New(`this deletes messages for good: send {"yes": true} to do so`))
		return
	}
	n, err := storage.Drop(r.Context(), r.PathValue("route"))
	if err != nil {
		refuse(w, err)
		return
	}
	writeJSON(w, http.StatusOK, Progress{Moved: &n})
}

// refuse answers with an error, and the status that fits it.
func refuse(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		code = refusal.Code
	}
	if errors.Is(err, relay.ErrFull) {
		code = http.StatusInsufficientStorage
	}
	writeError(w, code, err)
}
