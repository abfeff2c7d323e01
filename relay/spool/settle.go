package spool

import (
	"errors"
	"os"
	"slices"
)

// Settle marks records as done, in any order. Unknown sequence numbers, and those already settled, are ignored. The cursor
// is written at once, so that kill -9 forgets none of them; it is fsynced with the next sync. Segments without unsettled
// records are unlinked, which needs no room on the disk. Failures of the disk show in Stats.Err: at worst they cost duplicates.
func (s *Spool) Settle(seqs []uint64) {
	s.change(func() bool {
		var sg *segment
		news := false
		for _, seq := range seqs {
			if sg == nil || seq < sg.first || seq > sg.last() {
				if sg = s.find(seq); sg == nil {
					continue
				}
			}
			news = sg.settle(uint32(seq-sg.first)) || news
		}
		return news
	})
}

// change lets fn mark records, and puts the result on disk. fn is called with mu held, and returns whether it did anything.
func (s *Spool) change(fn func() bool) {
	s.settling.Lock()
	defer s.settling.Unlock()
	s.changeSettling(fn)
}

// changeSettling is change for a caller that holds settling.
func (s *Spool) changeSettling(fn func() bool) {
	if s.cursor.closed {
		return
	}
	s.mu.Lock()
	if !fn() {
		s.mu.Unlock()
		return
	}
	s.cursorDirty = true
	dead := s.reap()
	s.mu.Unlock()
	s.writeCursor()
	_ = s.unlink(dead) // again with the next sync
}

// reap takes the wholly settled segments out of the list. mu is held.
func (s *Spool) reap() (dead []*segment) {
	keep := s.segs[:0]
	for _, sg := range s.segs {
		if sg.live > 0 || sg == s.active || s.readOnly {
			keep = append(keep, sg)
			continue
		}
		sg.gone = true
		dead = append(dead, sg)
		s.ghosts = append(s.ghosts, sg)
	}
	clear(s.segs[len(keep):])
	s.segs = keep
	s.ghosts = slices.DeleteFunc(s.ghosts, func(sg *segment) bool {
		return len(keep) == 0 || sg.first < keep[0].first // the cursor's base says so already
	})
	return dead
}

// unlink removes the files of segments that are no longer in the list. What cannot be removed now is tried again with
// each sync, and counts as used until then. settling is held.
func (s *Spool) unlink(dead []*segment) error {
	var errs []error
	for _, sg := range dead {
		var err error
		if sg.broken != nil {
			_, err = s.moveAside(sg)
		} else {
			err = s.fs.Remove(sg.path)
		}
		s.mu.Lock()
		f := sg.f
		sg.f = nil
		if err == nil || errors.Is(err, os.ErrNotExist) {
			s.bytes -= sg.size
			s.newNames = true
			sg.unlinked = true
		} else {
			errs = append(errs, err)
			s.doomed = append(s.doomed, sg)
		}
		s.mu.Unlock()
		if f != nil {
			_ = f.Close() // nothing in it is of use any more
		}
	}
	return errors.Join(errs...)
}

// unlinkDoomed tries once more. settling is held.
func (s *Spool) unlinkDoomed() error {
	s.mu.Lock()
	doomed := s.doomed
	s.doomed = nil
	s.mu.Unlock()
	return s.unlink(doomed)
}

// writeCursor writes what is settled now. settling is held.
func (s *Spool) writeCursor() {
	if s.readOnly {
		return
	}
	s.mu.Lock()
	s.raiseStored()
	m := s.mark()
	s.mu.Unlock()
	err := s.cursor.write(&m)
	s.mu.Lock()
	s.cursorErr = err
	s.cursorDirty = s.cursorDirty || err != nil
	s.mu.Unlock()
}

// raiseStored: what is durable counts as far as all before it is. mu is held.
func (s *Spool) raiseStored() {
	for _, sg := range s.segs {
		if last := sg.first + uint64(sg.durable) - 1; sg.durable > 0 && last > s.stored {
			s.stored, s.storedIn = last, sg.first
		}
		if sg.durable < sg.count {
			return
		}
	}
}

// mark describes what is settled. mu is held.
func (s *Spool) mark() mark {
	m := mark{spool: s.id, stored: s.stored, storedIn: s.storedIn, last: s.last, base: s.last + 1}
	// A segment between others that is done with may come back with a loss of power until its removal is durable.
	for _, sg := range s.ghosts {
		m.sections = append(m.sections, section{first: sg.first, all: sg.count})
	}
	for _, sg := range s.segs {
		w := 0
		if sg.live > 0 && m.base > sg.first {
			m.base = sg.first + uint64(sg.low)
			w = int(sg.low / 64) // the words before that are below base
		}
		if w < len(sg.done) {
			m.sections = append(m.sections, section{first: sg.first + uint64(w)*64, words: slices.Clone(sg.done[w:])})
		}
	}
	return m
}

// apply is the inverse of mark, on Open.
func (s *Spool) apply(m *mark) {
	for _, sg := range s.segs {
		if m.base > sg.first {
			sg.settleBelow(uint32(min(m.base-sg.first, uint64(sg.count))))
		}
	}
	for _, sec := range m.sections {
		if sec.all > 0 {
			if sg := s.find(sec.first); sg != nil && sg.first == sec.first {
				sg.settleBelow(sec.all)
			}
			s.last = max(s.last, sec.first+uint64(sec.all)-1)
		}
		for i, word := range sec.words {
			for bit := range 64 {
				if word&(1<<bit) == 0 {
					continue
				}
				seq := sec.first + uint64(i*64+bit)
				if sg := s.find(seq); sg != nil {
					sg.settle(uint32(seq - sg.first))
				}
				s.last = max(s.last, seq)
			}
		}
	}
	s.stored, s.storedIn = m.stored, m.storedIn
	s.last = max(s.last, m.last)
	if m.base > 0 {
		s.last = max(s.last, m.base-1)
	}
}

// lose gives up the records with ordinals from up to, and not including, to, of which those already settled are no loss.
// sg.count is what bounds them: what was taken out of the segment meanwhile lives on in another. mu is held. It reports
// whether anything was lost.
func (s *Spool) lose(sg *segment, from, to uint32, d Damage) bool {
	to = min(to, sg.count)
	if sg.gone || from >= to {
		return false
	}
	for ord := from; ord < to; ord++ {
		if !sg.settle(ord) {
			continue
		}
		if d.Records++; d.Records == 1 {
			d.First = sg.first + uint64(ord)
		}
		d.Last = sg.first + uint64(ord)
	}
	if d.Records == 0 {
		return false
	}
	s.corrupt += d.Records
	d.File = sg.name()
	s.reports = append(s.reports, d)
	return true
}

func without(list []*segment, sg *segment) []*segment {
	for i, x := range list {
		if x == sg {
			return append(list[:i:i], list[i+1:]...)
		}
	}
	return list
}
