package natsconn

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// A session is one *nats.Conn, from its first connect until nats.go closes it for good.
type session struct {
	nc     atomic.Pointer[nats.Conn] // set once; atomic for callbacks that run before connect returns
	closed chan struct{}             // closed by nats.go's last callback
}

// state is what others may ask about a Conn without touching nats.go's lock: nats.go holds that
// lock while it dials, so Status() and Stats() can block for a whole connect_timeout in an outage.
type state struct {
	mu      sync.Mutex
	session *session
	up      bool
	since   time.Time     // of the last change to up
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
		}
		s.up = up
	})
	return lasted
}

func (s *state) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}
