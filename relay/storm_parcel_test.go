package relay

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"weak"
)

// fated is what is to become of a parcel.
type fated uint8

const (
	ordinary fated = iota
	poisoned       // the sink refuses it
	unfitted       // the stage cannot judge it
	unwanted       // the stage leaves it out
	looping        // it has passed this route before
)

// A parcel is one message. It may be handed to the route more than once: each time as another copy.
type parcel struct {
	n       int
	subject string
	size    int
	fated   fated
	batch   int // of the Replay that puts it into the route; 0: it comes from the source

	delivered, dead int
	epoch           int  // of the storm, when it was delivered last
	twice           bool // upstream has had to give it to the route again, though the route may have had it
	safe            bool // whoever has put it back was told so
	excused         bool // it was lost with a process or the power, and nobody was told that it was safe
}

// A parcelCopy is a parcel as it was handed to the route once.
type parcelCopy struct {
	*parcel
	storm     *storm
	run       *run // that it was handed to
	place     int  // in the order of all copies
	message   weak.Pointer[Message]
	cost      int64
	taken     bool // by the route
	fates     []Fate
	delivered *run // that has delivered it last
}

// publish makes n parcels and lets them wait upstream.
func (s *storm) publish(n int) {
	sizes := pick(s.rng, []int{10}, []int{10, 500, 5000}, []int{0, 3000, 25_000}, []int{10, 90_000})
	s.say("publish %d of %d bytes", n, sizes)
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.waiting = append(s.waiting, s.newParcel(pick(s.rng, sizes...), 0))
	}
	s.wake()
}

// newParcel is called with the lock held, by the one who draws.
func (s *storm) newParcel(size, batch int) *parcel {
	p := &parcel{n: len(s.parcels), subject: fmt.Sprint("s.", s.rng.IntN(5)), size: size, batch: batch}
	if s.rng.IntN(12) == 0 {
		p.fated = pick(s.rng, poisoned, poisoned, unfitted, unwanted, looping)
	}
	s.parcels = append(s.parcels, p)
	return p
}

const (
	headerPlace = "Place"
	headerFated = "Fated"
)

// newCopy makes the message that a parcel is handed over as. The lock is held.
func (s *storm) newCopy(p *parcel) (*parcelCopy, *Message) {
	c := &parcelCopy{parcel: p, storm: s, run: s.run, place: len(s.copies)}
	s.copies = append(s.copies, c)
	m := &Message{
		Subject: p.subject, ID: strconv.Itoa(p.n), Data: make([]byte, p.size), Time: time.Now(),
		Header: Header{headerPlace: {strconv.Itoa(c.place)}, headerFated: {strconv.Itoa(int(p.fated))}},
	}
	if p.fated == looping {
		m.Header[HeaderVia] = []string{"vm-17/orders"}
	}
	if s.receipts && p.batch == 0 {
		m.Stream, m.Sequence, m.Receipt = "ORDERS", uint64(p.n+1), c
	}
	c.message, c.cost = weak.Make(m), m.Size()+64 // the route signs it
	s.largest = max(s.largest, c.cost)
	return c, m
}

// copyOf returns the copy that a message is. The lock is held.
func (s *storm) copyOf(m *Message) *parcelCopy {
	place, err := strconv.Atoi(m.Header.Get(headerPlace))
	if err != nil || place >= len(s.copies) {
		s.t.Fatalf("a message that nobody has sent: %q", m.Header)
	}
	c := s.copies[place]
	if m.Subject != c.subject || m.ID != strconv.Itoa(c.n) || len(m.Data) != c.size || m.Stream != "" && m.Sequence != uint64(c.n+1) {
		s.t.Errorf("parcel %d comes out otherwise than it went in: %q %q, %d bytes", c.n, m.Subject, m.ID, len(m.Data))
	}
	return c
}

// stormStage knows a parcel by its header.
func stormStage(m *Message) (Verdict, error) {
	switch m.Header.Get(headerFated) {
	case strconv.Itoa(int(unfitted)):
		return Pass, errors.New("no such field")
	case strconv.Itoa(int(unwanted)):
		return Filtered, nil
	}
	return Pass, nil
}

// arrived notes that the sink confirms a message. The lock is held.
func (s *storm) arrived(r *run, m *Message) {
	c := s.copyOf(m)
	switch {
	case c.fated != ordinary && c.batch == 0:
		s.t.Errorf("parcel %d must not be delivered: %d", c.n, c.fated)
	case c.delivered == r:
		s.t.Errorf("parcel %d is delivered twice by one run", c.n)
	case c.parcel.delivered > 0 && c.epoch == s.epoch && !c.twice && !r.unclean:
		s.t.Errorf("parcel %d is delivered twice, and nothing has been forgotten", c.n)
	}
	if line, ordered := r.line(c); ordered {
		if last := s.last[line]; c.place < last {
			s.t.Errorf("parcel %d of line %q (copy %d) comes after copy %d (parcel %d)", c.n, line, c.place, last, s.copies[last].n)
		}
		s.last[line] = c.place
	}
	c.delivered, c.epoch = r, s.epoch
	c.parcel.delivered++
	r.delivered++
}

// line returns what the copy has to stay in order with, and whether it has to.
func (r *run) line(c *parcelCopy) (string, bool) {
	who := fmt.Sprint(c.batch) // what is put back lies anywhere between what comes meanwhile
	switch r.options.Delivery.Ordering {
	case OrderStrict:
		return who, true
	case OrderSubject:
		return who + " " + c.subject, true
	}
	return "", false
}

// Settle implements Receipt.
func (c *parcelCopy) Settle(f Fate) {
	s := c.storm
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.run.killed {
		return
	}
	if c.fates = append(c.fates, f); len(c.fates) > 1 {
		s.t.Errorf("parcel %d is settled twice: %v", c.n, c.fates)
	}
	switch f {
	case FateDone:
		if c.parcel.delivered == 0 && c.dead == 0 {
			c.run.givenUp++
		}
	case FateStored:
		if !c.run.options.Buffer.SettleStored {
			s.t.Errorf("parcel %d is settled as stored", c.n)
		}
	case FateReturned:
		if c.delivered == c.run {
			s.t.Errorf("parcel %d is given back though it was delivered", c.n)
		}
		if c.run.returned++; c.place < c.run.lastReturned && !c.run.unclean {
			s.t.Errorf("parcel %d is given back after copy %d", c.n, c.run.lastReturned)
		}
		c.run.lastReturned = c.place
		c.twice = c.twice || c.run.unclean
		s.giveBack(c.parcel)
	}
}

// giveBack lets a parcel wait upstream again, in its place. The lock is held.
func (s *storm) giveBack(p *parcel) {
	at, found := slices.BinarySearchFunc(s.waiting, p.n, func(q *parcel, n int) int { return q.n - n })
	if !found {
		s.waiting = slices.Insert(s.waiting, at, p)
	}
	s.wake()
}

func (s *storm) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}
