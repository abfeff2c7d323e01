// Package listen is an HTTP receiver to try a relay on: it prints what arrives, and misbehaves on demand.
package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// maxBody is the most that is read of one body; a larger one is answered with 413.
	maxBody = 64 << 20
	// stopTimeout is how long Serve waits for requests in progress when it stops.
	stopTimeout = 5 * time.Second
)

// A Receiver answers every request and prints one line for each. Its lines go to one
// writer, one Write call a line, never two at once.
type Receiver struct {
	now func() time.Time

	mu    sync.Mutex // guards out and the counts
	out   io.Writer
	total int
	bytes int64
	by    map[int]int // requests by the status that they were answered with
}

// New returns a receiver that prints to out.
func New(out io.Writer) *Receiver {
	return &Receiver{now: time.Now, out: out, by: make(map[int]int)}
}

// ServeHTTP reads the body, does what the path asks for, answers, and prints the line.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	arrived := r.now()
	excerpt, size, err := readBody(http.MaxBytesReader(w, req.Body, maxBody))
	conduct := conductOf(req.URL.Path)
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		conduct = misconduct(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", int64(maxBody))
	case err != nil:
		conduct = misconduct(http.StatusBadRequest, "the body could not be read: %v", err)
	}
	status := conduct.answer(req.Context(), w)
	r.record(status, size, line(arrived, status, req, size, excerpt))
}

// record counts one request and prints its line.
func (r *Receiver) record(status int, size int64, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total++
	r.bytes += size
	r.by[status]++
	// A closed pipe downstream (`listen | head`) is no reason to stop answering.
	_, _ = io.WriteString(r.out, line)
}

// Serve answers requests on ln until ctx ends; then it lets those in progress finish, for a
// few seconds at most, and prints the counts. It owns ln.
func (r *Receiver) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           r,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    1 << 20,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		err = errors.Join(err, srv.Close())
		<-served
		return fmt.Errorf("stop the HTTP server: %w", err)
	}
	<-served
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := io.WriteString(r.out, summary(r.total, r.bytes, r.by))
	return err
}
