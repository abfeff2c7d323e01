package supervise

import (
	"context"
	"errors"
	"sync"
)

// reloads lets reloads happen one after the other. Those asked for while one is under way are one more, after it: it began
// before the files were as they are now.
type reloads struct {
	do    func(context.Context) error
	wake  chan struct{} // has room for one
	ended chan struct{} // closed when run has returned

	mu   sync.Mutex
	next *reload // asked for and not begun; nil: none
}

// A reload is what all share who asked for the same one.
type reload struct {
	done chan struct{}
	err  error // once done is closed
}

func newReloads(do func(context.Context) error) *reloads {
	return &reloads{do: do, wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

// wait returns the outcome of a reload.
func (r *reloads) wait(ctx context.Context, asked *reload) error {
	select {
	case <-asked.done:
		return asked.err
	case <-r.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errEnded = errors.New("the relay has stopped, it reloads nothing")

// ask returns the reload that begins after this call.
func (r *reloads) ask() *reload {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &reload{done: make(chan struct{})}
		r.wake <- struct{}{} // there is room: it was taken with the reload before
	}
	return r.next
}

// run does what is asked for until ctx ends.
func (r *reloads) run(ctx context.Context) {
	defer close(r.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		r.mu.Lock()
		now := r.next
		r.next = nil
		r.mu.Unlock()
		now.err = r.do(ctx)
		close(now.done)
	}
}
