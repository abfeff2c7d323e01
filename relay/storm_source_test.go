package relay

import (
	"context"
	"errors"
	"time"
)

// A stormSource hands over what waits upstream, one parcel after the other.
type stormSource struct{ storm *storm }

func (src *stormSource) Run(ctx context.Context, accept func(*Message) error) error {
	s := src.storm
	for {
		m := s.next()
		if m == nil {
			select {
			case <-s.more:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if err := accept(m); s.handed(err) {
			<-ctx.Done()
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (*stormSource) Close(context.Context) error { return nil }

// next takes the first of what waits.
func (s *storm) next() *Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil
	}
	p := s.waiting[0]
	s.waiting = s.waiting[1:]
	c, m := s.newCopy(p)
	s.offered, s.since = c, time.Now()
	s.events++
	return m
}

// handed notes what accept has said, and reports whether the parcel was not taken.
func (s *storm) handed(err error) (refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.offered
	s.offered = nil
	switch dead := s.run != nil && s.run.killed; {
	case err == nil && !dead:
		c.taken = true
		return false
	case err == nil && !s.receipts:
		c.excuse() // it went down with the process
		return false
	case err == nil:
		s.giveBack(c.parcel)
		return false
	}
	if !errors.Is(err, ErrStopped) {
		s.t.Errorf("accept: %v", err)
	}
	if s.run != nil {
		s.run.refused++
	}
	s.giveBack(c.parcel)
	return true
}

// replay puts n parcels back into the route, past its source.
func (s *storm) replay(n int) {
	size := pick(s.rng, 10, 2000)
	s.say("replay %d of %d bytes", n, size)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replayed++
	var parcels []*parcel
	for range n {
		p := s.newParcel(size, s.replayed)
		p.fated = ordinary
		p.excused = true // until somebody is told otherwise
		parcels = append(parcels, p)
	}
	r := s.run
	if r == nil {
		return
	}
	var batch []*Stored
	for _, p := range parcels {
		_, m := s.newCopy(p)
		batch = append(batch, &Stored{Message: *m})
	}
	s.calls.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		taken, err := r.route.Replay(ctx, batch)
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.killed {
			return
		}
		r.replayed += taken
		for _, p := range parcels[:taken] {
			p.excused = false
			p.safe = err == nil
		}
	})
}
