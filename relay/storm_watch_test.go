package relay

import (
	"runtime"
	"testing/synctest"
	"time"
)

// watch looks again and again at what must hold at any time, until end is called.
func (s *storm) watch() (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		calls, events := 0, 0
		for {
			select {
			case <-stop:
				return
			case <-time.After(997 * time.Millisecond):
			}
			s.checkNow()
			s.mu.Lock()
			newEvents := s.events - events
			events += newEvents
			s.mu.Unlock()
			newCalls := s.disk.called() - calls
			calls += newCalls
			if segments := s.disk.segments(); newCalls > 1000+100*newEvents+20*segments {
				s.t.Errorf("%d calls of the disk within a second, with %d messages and %d segments", newCalls, newEvents, segments)
			}
		}
	}()
	return func() {
		close(stop)
		<-done
	}
}

// checkNow looks at the route as it is.
func (s *storm) checkNow() {
	s.mu.Lock()
	r, largest := s.run, s.largest
	s.mu.Unlock()
	if r == nil {
		return
	}
	st := r.route.Stats() // never waits: it would stop the time
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.killed || s.run != r {
		return
	}
	// Besides the bound: a message that comes, one that is read from disk, and what small messages cost more in memory than they do there.
	if most := r.options.Buffer.Memory*3/2 + 2*largest; st.MemoryBytes > most {
		s.t.Errorf("%d bytes in memory, buffer.memory is %d", st.MemoryBytes, r.options.Buffer.Memory)
	}
	if st.Stalled != "" {
		s.t.Errorf("the route has stalled: %s", st.Stalled)
	}
	s.checkSource(r, st)
}

// checkSource: no message waits for room for long while the disk works and has it.
func (s *storm) checkSource(r *run, st RouteStats) {
	const long = 30 * time.Second
	o := r.options.Buffer
	c := s.offered
	if c == nil || !s.stopping.IsZero() || s.receipts && !o.SettleStored || o.Disk == 0 {
		return
	}
	if st.DiskBytes+c.cost+2*o.Memory+1<<20 > o.Disk {
		s.fullAt = time.Now()
		return
	}
	if !s.disk.fails() && time.Since(s.diskSince) > long && time.Since(s.fullAt) > long && time.Since(s.since) > long {
		s.t.Errorf("parcel %d waits for room since %v, and the disk has it: %+v", c.n, time.Since(s.since), st)
		s.since = time.Now()
	}
}

// checkLeaks: of the messages that were handed over, only those that the route holds are in memory.
func (s *storm) checkLeaks() {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return
	}
	runtime.GC()
	alive := int64(0)
	for _, c := range s.copies {
		if c.run == s.run && c.batch == 0 && c.message.Value() != nil && c != s.offered {
			alive += c.cost
		}
	}
	b := s.run.route.buffer
	b.mu.Lock()
	defer b.mu.Unlock()
	if alive > b.held+int64(b.messages)*64+s.largest {
		s.t.Errorf("messages of %d bytes are alive, the route holds %d", alive, b.held)
	}
}

// awaitRest waits until there is nothing left to do, for no longer than all pauses together may take.
func (s *storm) awaitRest() {
	o := s.options.Delivery
	most := 2*time.Minute + openPauseMax + 2*maxRetryAfter*o.RetryMax
	if o.RateLimit > 0 {
		most += time.Duration(len(s.copies)) * time.Second / time.Duration(o.RateLimit)
	}
	for began := time.Now(); !s.atRest(); time.Sleep(time.Second) {
		if r := s.route(); r != nil {
			r.Resume()
			if r.health() != healthy && r.Stats().MemoryMessages == 0 {
				s.publish(1) // for a sink to be tried with
			}
		}
		if time.Since(began) > most {
			r := s.route()
			if r == nil {
				s.t.Errorf("the route is not open %v after all faults have ended: %+v", most, s.relay.Status())
				return
			}
			s.mu.Lock()
			s.t.Errorf("no rest %v after all faults have ended: %d wait upstream, %+v: %v", most, len(s.waiting), r.Stats(), s.run)
			s.mu.Unlock()
			return
		}
	}
	synctest.Wait()
	calls := s.disk.called()
	time.Sleep(time.Minute)
	if n := s.disk.called() - calls; n > 100 {
		s.t.Errorf("%d calls of the disk in a minute of rest", n)
	}
}

func (s *storm) atRest() bool {
	synctest.Wait()
	r := s.route()
	if r == nil {
		return false
	}
	st := r.Stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) == 0 && s.offered == nil && st.State == StateFlowing && st.MemoryMessages == 0 && st.DiskMessages == 0
}

// checkAll: the fate of every parcel is known.
func (s *storm) checkAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	missing := 0
	for _, p := range s.parcels {
		if p.delivered == 0 && p.dead == 0 && !p.excused {
			missing++
		}
	}
	if uint64(missing) > s.lost && !s.blind {
		s.t.Errorf("%d of %d parcels are missing, %d are counted as lost", missing, len(s.parcels), s.lost)
	}
	if n := s.disk.segments(); n > 0 && !s.faulty { // what could not be unlinked may be left to the next opening

		s.t.Errorf("%d segment files are left, with nothing in them", n)
	}
}
