package admin

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

// inLines answers with what fn writes, and in the last line with its result, unless that is nil, or its error.
func (s *Server) inLines(w http.ResponseWriter, r *http.Request, fn func(*lineWriter) (result any, err error)) {
	st, ok := s.openStream(w, r)
	if !ok {
		return
	}
	defer st.close()
	lines := &lineWriter{stream: st}
	lines.end(fn(lines))
}

// A lineWriter answers in lines of JSON. As long as nothing has been written, an error can still have its status.
type lineWriter struct {
	stream *stream
	buf    []byte
	began  bool
}

const lineBuffer = 64 << 10

func (l *lineWriter) message(m *relay.Stored) (err error) {
	if l.buf, err = m.AppendJSONLine(l.buf); err != nil {
		return err
	}
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
func (l *lineWriter) end(result any, err error) {
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
