package admin

import (
	"errors"
	"io"
	"net/http"
	"time"
)

const (
	// maxStreams bounds the answers and requests that have no end of their own: each may last for ever.
	maxStreams = 16
	// streamTimeout is how long one read or one write of a stream may take.
	streamTimeout = 15 * time.Second
)

var errTooManyStreams = errors.New("too many streams are open, try again later")

// A stream is a request that may last for longer than others. Each of its reads and writes has a time-out of its own.
type stream struct {
	w    http.ResponseWriter
	body io.Reader
	rc   *http.ResponseController
	done func()
}

// openStream answers the request itself if there are too many. The caller closes the stream.
func (s *Server) openStream(w http.ResponseWriter, r *http.Request) (*stream, bool) {
	select {
	case s.streams <- struct{}{}:
	default:
		w.Header().Set("Retry-After", "5")
		writeError(w, http.StatusServiceUnavailable, errTooManyStreams)
		return nil, false
	}
	st := &stream{w: w, body: r.Body, rc: http.NewResponseController(w), done: func() { <-s.streams }}
	_ = st.rc.SetReadDeadline(time.Time{}) // the server's would end the request's context
	return st, true
}

func (st *stream) close() { st.done() }

// extend gives the next write its time. What it has not is told by the write itself.
func (st *stream) extend() { _ = st.rc.SetWriteDeadline(time.Now().Add(streamTimeout)) }

// Write implements io.Writer.
func (st *stream) Write(p []byte) (int, error) {
	st.extend()
	return st.w.Write(p)
}

// Read implements io.Reader, of the request's body.
func (st *stream) Read(p []byte) (int, error) {
	if err := st.rc.SetReadDeadline(time.Now().Add(streamTimeout)); err != nil {
		return 0, err
	}
	return st.body.Read(p)
}

func (st *stream) flush() error {
	st.extend()
	return st.rc.Flush()
}
