package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

// Storage is one of the two kinds of things that routes keep on disk: what waits to be delivered, and dead letters. Routes that do not run (any
// more) may have something there, too. The errors that are the client's to mend are *Refusal.
type Storage interface {
	// List describes what there is, in the order of the routes' names.
	List(context.Context) ([]Holding, error)
	// Walk calls fn with the messages of a route, oldest first, until it returns an error.
	Walk(ctx context.Context, route string, fn func(*relay.Stored) error) error
	// Drop deletes all that a route has, and returns how many messages that was.
	Drop(ctx context.Context, route string) (messages int, err error)
}

// SpoolStorage is what waits to be delivered.
type SpoolStorage interface {
	Storage
	// Verify reads every byte that a route has.
	Verify(ctx context.Context, route string, progress func(done, total int64)) (Report, error)
	// Replay puts messages into a route that runs, behind what is there, and returns how many of them are safe there.
	Replay(ctx context.Context, route string, batch []*relay.Stored) (int, error)
}

// DeadStorage is what was given up.
type DeadStorage interface {
	Storage
	// Replay puts dead letters back into their route, which must run.
	Replay(ctx context.Context, route string, which relay.Selection, progress func(done, total int)) (messages int, err error)
}

// A Holding is what one route has on disk.
type Holding struct {
	Route    string    `json:"route"`
	Runs     bool      `json:"runs"` // the route runs
	Messages int       `json:"messages"`
	Bytes    int64     `json:"bytes"` // of files
	Oldest   time.Time `json:"oldest,omitzero"`
	Newest   time.Time `json:"newest,omitzero"`
	Segments int       `json:"segments"`
	Damage   string    `json:"damage"` // "none", or how much
	Error    string    `json:"error,omitempty"`
}

// A Report is what a Verify has found.
type Report struct {
	Messages int      `json:"messages"`
	Segments int      `json:"segments"`
	Damage   []string `json:"damage"` // each place in a line
	Lost     int      `json:"lost"`   // messages
}

// A Refusal is an error that the client can do something about.
type Refusal struct {
	Code int // HTTP status
	Err  error
}

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

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
	which, err := selectionOf(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	st, ok := s.openStream(w, r)
	if !ok {
		return
	}
	defer st.close()
	lines := &lineWriter{stream: st}
	err = storage.Walk(r.Context(), r.PathValue("route"), func(m *relay.Stored) error {
		if !which.Wants(m) {
			return nil
		}
		if err := lines.message(m); err != nil {
			return err
		}
		if lines.n == which.Limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	lines.end(err, nil)
}

// errEnough ends a walk before its end.
var errEnough = errors.New("enough")

// selectionOf reads ?subject=, ?since= (RFC 3339) and ?limit=.
func selectionOf(r *http.Request) (which relay.Selection, err error) {
	q := r.URL.Query()
	which.Subject = q.Get("subject")
	if since := q.Get("since"); since != "" {
		if which.After, err = time.Parse(time.RFC3339Nano, since); err != nil {
			return which, fmt.Errorf("since %q is not a time such as 2026-11-01T12:00:00Z", since)
		}
	}
	if limit := q.Get("limit"); limit != "" {
		if which.Limit, err = strconv.Atoi(limit); err != nil || which.Limit < 0 {
			return which, fmt.Errorf("limit %q is not a number of messages", limit)
		}
	}
	return which, nil
}

// A lineWriter answers in lines of JSON. As long as nothing has been written, an error can still have its status.
type lineWriter struct {
	stream *stream
	buf    []byte
	n      int // messages
	began  bool
}

const lineBuffer = 64 << 10

func (l *lineWriter) message(m *relay.Stored) (err error) {
	if l.buf, err = m.AppendJSONLine(l.buf); err != nil {
		return err
	}
	l.n++
	if len(l.buf) < lineBuffer {
		return nil
	}
	return l.write()
}

// value writes a line at once.
func (l *lineWriter) value(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.buf = append(append(l.buf, data...), '\n')
	if err := l.write(); err != nil {
		return err
	}
	return l.stream.flush()
}

func (l *lineWriter) write() error {
	if !l.began {
		l.began = true
		l.stream.w.Header().Set("Content-Type", "application/jsonl")
	}
	_, err := l.stream.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

// end writes the last line: the error, or the result if there is one.
func (l *lineWriter) end(err error, result any) {
	switch {
	case err != nil && !l.began:
		l.stream.extend()
		refuse(l.stream.w, err)
	case err != nil:
		_ = l.value(failure{Error: err.Error()}) // who does not read it any more has gone
	case result != nil:
		_ = l.value(result)
	default:
		_ = l.write()
	}
}

// Progress is how far long work has come; the last line of an answer has the result instead.
type Progress struct {
	Done   int64   `json:"done"`
	Total  int64   `json:"total"`
	Report *Report `json:"report,omitempty"` // of a verify
	Moved  *int    `json:"moved,omitempty"`  // by a replay
}

// progressEvery is how often a client hears of it.
const progressEvery = time.Second

// reporter returns a function that writes the progress now and then.
func (l *lineWriter) reporter() func(done, total int64) {
	due := time.Now().Add(progressEvery)
	return func(done, total int64) {
		if now := time.Now(); now.After(due) {
			due = now.Add(progressEvery)
			_ = l.value(Progress{Done: done, Total: total}) // who has gone ends the request's context
		}
	}
}

func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	st, ok := s.openStream(w, r)
	if !ok {
		return
	}
	defer st.close()
	lines := &lineWriter{stream: st}
	report, err := s.opts.Spool.Verify(r.Context(), r.PathValue("route"), lines.reporter())
	lines.end(err, Progress{Report: &report})
}

func (s *Server) replayDead(w http.ResponseWriter, r *http.Request) {
	which, err := selectionOf(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	st, ok := s.openStream(w, r)
	if !ok {
		return
	}
	defer st.close()
	lines := &lineWriter{stream: st}
	report := lines.reporter()
	moved, err := s.opts.Dead.Replay(r.Context(), r.PathValue("route"), which, func(done, total int) { report(int64(done), int64(total)) })
	if err != nil && moved > 0 {
		err = fmt.Errorf("after %d messages: %w", moved, err)
	}
	lines.end(err, Progress{Moved: &moved})
}

// Bounds of what is read of a replay before it is passed on, and of one line of it.
const (
	replayMessages = 1000
	replayBytes    = 256 << 10
	replayLine     = 128 << 20 // a payload of 64 MiB in base64, and headers
)

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

type replayer struct {
	lines *bufio.Reader
	put   func([]*relay.Stored) (int, error)

	batch []*relay.Stored
	bytes int
	safe  int
}

func (p *replayer) run() error {
	for n := 1; ; n++ {
		line, err := readLine(p.lines)
		if err == io.EOF {
			return p.pass()
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		m, err := relay.ParseJSONLine(line)
		if err != nil {
			return errors.Join(&Refusal{http.StatusBadRequest, fmt.Errorf("line %d: %w", n, err)}, p.pass())
		}
		p.batch = append(p.batch, m)
		if p.bytes += len(line); p.bytes >= replayBytes || len(p.batch) == replayMessages {
			if err := p.pass(); err != nil {
				return err
			}
		}
	}
}

func (p *replayer) pass() error {
	if len(p.batch) == 0 {
		return nil
	}
	n, err := p.put(p.batch)
	p.safe += n
	p.batch, p.bytes = nil, 0
	return err
}

// readLine returns the next line, which may be long, but not endless. io.EOF: there is none.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > replayLine:
			return nil, &Refusal{http.StatusRequestEntityTooLarge, fmt.Errorf("it is longer than %d bytes", replayLine)}
		case err == io.EOF && len(line) > 0, err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
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
