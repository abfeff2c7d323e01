package sinks

import "sync"

// lanes are what Delivers that run side by side need, one each: kept from one to the next, as many as there ever were at a time.
// It is safe for concurrent use.
type lanes[L any] struct {
	mu        sync.Mutex
	idle, all []L
}

// take returns a lane for the caller alone, made by fresh if none is idle.
func (s *lanes[L]) take(fresh func() L) L {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.idle); n > 0 {
		l := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return l
	}
	l := fresh()
	s.all = append(s.all, l)
	return l
}

// put gives a lane back.
func (s *lanes[L]) put(l L) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, l)
}

// drain returns all lanes, for their end. None may be in use.
func (s *lanes[L]) drain() []L {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	s.idle, s.all = nil, nil
	return all
}
