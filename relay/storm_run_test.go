package relay

import (
	"fmt"
	"maps"
	"time"
)

// A run is one Route, from its opening to its end.
type run struct {
	storm   *storm
	route   *Route
	options RouteOptions
	mount   *memMount

	backlog      int  // messages that it has found on disk
	carried      int  // messages that it has received from the route before, which had counted them: 0 or 1
	refused      int  // messages that it has not taken, and counted
	replayed     int  // messages put back
	delivered    int  // what the sink says
	dead         int  // what the store of dead letters says
	returned     int  // given back upstream
	givenUp      int  // done upstream, and neither delivered nor a dead letter
	lastReturned int  // copy
	unclean      bool // the disk has failed: what is done may not be known by the next run
	killed       bool
}

// beginRun opens the route. It is called without the lock: the disk may be slow.
func (s *storm) beginRun(source Source) (*Route, error) {
	s.mu.Lock()
	r := &run{storm: s, options: s.options, mount: s.disk.mount()}
	sink := &stormSink{storm: s, run: r, limits: s.limits, lines: map[string]bool{}}
	streams := s.streams
	s.blind = s.blind || s.disk.unreadable()
	s.mu.Unlock()
	r.options.fs = r.mount
	if r.options.DeadLetters != nil {
		r.options.DeadLetters = &stormBox{s, r}
	}
	var far Sink = sink
	if streams {
		far = streamingSink{sink}
	}
	route, err := NewRoute(r.options, source, far, s.log)
	if err != nil {
		return nil, err
	}
	r.route = route
	if route.buffer.disk != nil {
		r.backlog = route.buffer.disk.Stats().Records
	}
	r.unclean = s.disk.fails()
	s.mu.Lock()
	defer s.mu.Unlock()
	r.carried = s.carried()
	s.run, s.stopping, s.sunny = r, time.Time{}, false
	return route, nil
}

// carried returns how many messages one route has received and another one is to take. No route takes any now, and the lock is held.
func (s *storm) carried() int {
	if c := s.offered; c != nil {
		if m := c.message.Value(); m != nil && m.accepted {
			return 1
		}
	}
	return 0
}

// endRun is called when the run has ended in order: the sum of it must be right.
func (s *storm) endRun() {
	s.calls.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.run
	if r == nil {
		return
	}
	s.run = nil
	st := r.route.Stats()
	in := r.backlog + r.carried + int(st.Received) - r.refused - s.carried() + r.replayed
	dropped := int(total(st.Dropped))
	out := int(st.Delivered) + dropped + int(st.DeadLettersTotal()) + int(st.Corrupt) + r.returned + st.DiskMessages
	// What the disk has lost may have been in memory, too; and what it has not fsynced may be there all the same.
	twice := st.Corrupt > 0 || r.unclean && r.options.Buffer.SettleStored
	if in > out || in < out && !twice {
		s.t.Errorf("%d messages came into the run, %d came out of it or are left: %v", in, out, r)
	}
	if int(st.Delivered) != r.delivered || int(st.DeadLettersTotal()) != r.dead || r.givenUp > dropped {
		s.t.Errorf("the route's counts are not right: %v", r)
	}
	s.checkSettled(r)
	r.route = nil // copies hold on to the run
	s.lost += total(st.Dropped) + st.Corrupt
	if r.unclean {
		s.forgetDeliveries()
	}
}

// checkSettled makes sure that upstream has heard of all that the run has taken.
func (s *storm) checkSettled(r *run) {
	if !s.receipts {
		return
	}
	for _, c := range s.copies {
		if c.run == r && c.taken && len(c.fates) == 0 {
			s.t.Errorf("parcel %d was taken, and never settled", c.n)
		}
	}
}

// die ends the run as if its process had been killed at this instant. The lock is held.
func (r *run) die() {
	s := r.storm
	r.killed = true
	r.mount.kill()
	b := r.route.buffer
	b.mu.Lock()
	for m := range b.inMemory {
		if m.record == 0 && !m.settled {
			c := s.copyOf(m)
			c.excused = c.excused || !c.safe || m.evicted // what the disk has given up had its last chance
		}
	}
	b.mu.Unlock()
	for _, c := range s.copies {
		kept := s.receipts && c.batch == 0
		if c.run == r && kept && len(c.fates) == 0 && c != s.offered {
			c.twice = true
			s.giveBack(c.parcel)
		}
	}
	st := r.route.Stats()
	s.lost += total(st.Dropped) + st.Corrupt
}

func (c *parcelCopy) excuse() { c.excused = c.excused || !c.safe }

// forget is called when a killed process has ended, and what was on its disk only, too, if the power has failed. The lock is held.
func (s *storm) forget(power bool) {
	for _, c := range s.copies {
		if kept := s.receipts && c.batch == 0; power && !kept {
			c.excuse()
		}
	}
	if s.run != nil {
		s.run.route = nil
	}
	s.run = nil
	s.forgetDeliveries()
}

// forgetDeliveries: the next run may deliver again what was delivered.
func (s *storm) forgetDeliveries() {
	s.epoch++
	clear(s.last)
}

// String shows what the run has counted beside what the route has.
func (r *run) String() string {
	st := r.route.Stats()
	dropped := st.Dropped
	maps.DeleteFunc(dropped, func(_ string, n uint64) bool { return n == 0 })
	return fmt.Sprintf("backlog %d, carried over %d, received %d, refused %d, put back %d; delivered %d (the sink says %d), dropped %v, dead letters %d (the store says %d), "+
		"corrupt %d, given back %d, given up %d, on disk %d, in memory %d, unclean %t", r.backlog, r.carried, st.Received, r.refused, r.replayed, st.Delivered, r.delivered, dropped,
		st.DeadLettersTotal(), r.dead, st.Corrupt, r.returned, r.givenUp, st.DiskMessages, st.MemoryMessages, r.unclean)
}
