package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// A web is the HTTP receiver of the demo.
type web struct {
	addr  string
	tally *tally
	srv   *http.Server  // nil while away
	ended chan struct{} // closed when srv has ended
}

// newWeb returns a receiver that is there.
func newWeb(t *tally) (*web, error) {
	ln, err := listenLow()
	if err != nil {
		return nil, err
	}
	w := &web{addr: ln.Addr().String(), tally: t}
	w.serve(ln)
	return w, nil
}

func (w *web) serve(ln net.Listener) {
	srv := &http.Server{Handler: w, ReadHeaderTimeout: 5 * time.Second}
	w.srv, w.ended = srv, make(chan struct{})
	ended := w.ended
	go func() {
		defer close(ended)
		_ = srv.Serve(ln) // it ends by being closed, always with an error
	}()
}

// ServeHTTP counts the message, then confirms it.
func (w *web) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(rw, req.Body, 1<<20))
	if err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	w.tally.add(req.Header.Get("Nats-Subject"), data)
	rw.WriteHeader(http.StatusNoContent)
}

// leave makes the receiver refuse connections, those that it has included.
func (w *web) leave(context.Context) error {
	if w.srv == nil {
		return nil
	}
	err := w.srv.Close()
	<-w.ended
	w.srv = nil
	return err
}

// back makes the receiver answer again, on the port that it had.
func (w *web) back() error {
	ln, err := net.Listen("tcp", w.addr)
	if err != nil {
		return fmt.Errorf("bring the HTTP receiver back: %w", err)
	}
	w.serve(ln)
	return nil
}
