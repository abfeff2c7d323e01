package natsconn

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// A session is one *nats.Conn, from its first connect until nats.go closes it for good.
type session struct {
	nc      atomic.Pointer[nats.Conn] // set once; atomic for callbacks that run before connect returns
	closed  chan struct{}             // closed by nats.go's last callback
	leaving *time.Timer               // runs while a move away from the server is due; the event goroutine's
}

func newSession() *session {
	s := &session{closed: make(chan struct{}), leaving: time.NewTimer(0)}
	s.leaving.Stop()
	return s
}

// state is what others may ask about a Conn without touching nats.go's lock: nats.go holds that
// lock while it dials, so Status() and Stats() can block for a whole connect_timeout in an outage.
type state struct {
	mu      sync.Mutex
	session *session
	up      bool
	since   time.Time     // of the last change to up
	life    time.Duration // of the last connection that has ended
	changed chan struct{} // closed and replaced at each change
}

func (s *state) init() { s.changed = make(chan struct{}) }

func (s *state) get() (*session, bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session, s.up && s.session != nil, s.changed
}

func (s *state) attach(sess *session) {
	s.update(func() { s.session = sess })
}

func (s *state) detach() {
	s.update(func() { s.session, s.up = nil, false })
}

// setUp returns how long the state before lasted.
func (s *state) setUp(up bool) time.Duration {
	var lasted time.Duration
	s.update(func() {
		now := time.Now()
		if up != s.up {
			lasted, s.since = now.Sub(s.since), now
			if !up {
				s.life = lasted
			}
		}
		s.up = up
	})
	return lasted
}

// lived returns how long the connection has lasted, or the last one did.
func (s *state) lived() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		return time.Since(s.since)
	}
	return s.life
}

func (s *state) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}
