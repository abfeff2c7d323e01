package relay

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// An Intake is a source that a route can leave to its successor. In between, the source stays connected and subscribed, and what
// arrives waits in accept: for a source whose far side keeps nothing for those who are away, a changed route would else
// cost messages. It is a Source and an Upstream.
type Intake struct {
	source Source
	close  func(context.Context)

	stop  context.CancelFunc // ends the source; nil while it does not run
	ended chan error         // has what the source's Run returned

	parked atomic.Bool // the route that ends leaves the source to another one

	mu      sync.Mutex
	changed sync.Cond            // of what follows
	accept  func(*Message) error // nil: no route takes messages at present
	passing int                  // calls of accept under way
	ending  bool                 // the source passes on what it has, and no other route comes for that: parking it is too late
}

// NewIntake returns an intake of a source. close ends what the source stands on, when the source itself has ended.
func NewIntake(source Source, close func(context.Context)) *Intake {
	i := &Intake{source: source, close: close}
	i.changed.L = &i.mu
	return i
}

// park makes the end of the route that has the intake leave the source as it is, or takes that back. It is called before that route is stopped.
func (i *Intake) park(parked bool) { i.parked.Store(parked) }

// Run implements Source. It may be called again when it has returned.
func (i *Intake) Run(ctx context.Context, accept func(*Message) error) error {
	i.attach(accept)
	defer i.detach()
	if i.stop == nil {
		i.start()
	}
	select {
	case err := <-i.ended:
		i.stop = nil
		return err
	case <-ctx.Done():
	}
	if i.parked.Load() {
		return nil
	}
	return i.end()
}

// attach makes accept the one that takes messages.
func (i *Intake) attach(accept func(*Message) error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.accept = accept
	i.changed.Broadcast()
}

// detach lets no message pass any more, and waits for those that do.
func (i *Intake) detach() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.accept = nil
	for i.passing > 0 {
		i.changed.Wait()
	}
}

// running reports whether the source may have messages. Run must not be under way.
func (i *Intake) running() bool { return i.stop != nil }

func (i *Intake) start() {
	i.setEnding(false)
	ctx, stop := context.WithCancel(context.Background())
	i.stop, i.ended = stop, make(chan error, 1)
	go func() { i.ended <- i.source.Run(ctx, i.pass) }()
}

// end stops the source, and waits until it has passed on all that it has.
func (i *Intake) end() error {
	if i.stop == nil {
		return nil
	}
	i.setEnding(true)
	i.stop()
	err := <-i.ended
	i.stop = nil
	return err
}

func (i *Intake) setEnding(ending bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ending = ending
}

// pass is the source's accept.
func (i *Intake) pass(m *Message) error {
	for {
		err := i.enter()(m)
		if again := i.leave(err); !again {
			return err
		}
		// The route has ended before it had room. Its successor takes the message.
	}
}

// enter waits until there is a route that takes messages.
func (i *Intake) enter() func(*Message) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for i.accept == nil {
		i.changed.Wait()
	}
	i.passing++
	return i.accept
}

// leave reports whether the message is one for the next route.
func (i *Intake) leave(err error) (again bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.passing--; i.accept == nil {
		i.changed.Broadcast()
	}
	return errors.Is(err, ErrStopped) && i.parked.Load() && !i.ending
}

// Close implements Source. It does nothing if the source is left to another route.
func (i *Intake) Close(ctx context.Context) error {
	if i.parked.Load() {
		return nil
	}
	err := i.source.Close(ctx)
	i.close(ctx)
	return err
}

// abandon ends an intake that was parked for a route that does not come.
func (i *Intake) abandon(ctx context.Context) error {
	i.park(false)
	i.attach(func(*Message) error { return ErrStopped })
	err := i.end()
	i.detach()
	return errors.Join(err, i.Close(ctx))
}

// Trouble implements Upstream.
func (i *Intake) Trouble() error {
	if u, ok := i.source.(Upstream); ok {
		return u.Trouble()
	}
	return nil
}

// Pending implements Upstream.
func (i *Intake) Pending() (uint64, bool) {
	if u, ok := i.source.(Upstream); ok {
		return u.Pending()
	}
	return 0, false
}

// Lost implements Upstream.
func (i *Intake) Lost() map[string]uint64 {
	if u, ok := i.source.(Upstream); ok {
		return u.Lost()
	}
	return nil
}
