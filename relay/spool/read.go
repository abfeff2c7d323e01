package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// reader is where Read stands. Guarded by Spool.reading.
type reader struct {
	codec   codec
	sg      *segment
	f       File
	sc      *scanner
	decoded []Record // their Data is in the scanner's buffer
	given   int      // as many of them were handed out, or skipped
	next    uint64   // all records below were handed out, or skipped
	buf     []byte   // the scanner's, from one segment to the next
	tries   int      // failed attempts to open the file
}

// Read appends to dst the next unsettled records with sequence numbers of at least from, in order: as many as are at hand
// and whose Data stays within maxBytes, at least one if there is one. An empty result means that there is nothing more. Data
// is the spool's, and valid until the next Read: whoever keeps it must copy it.
//
// Going on where the last call stopped is fast; any other place is looked for from the beginning of its segment.
//
// Damage is reported and passed over. An error is the disk's and may pass: call again, later. What cannot be read in
// several attempts is treated as damage.
func (s *Spool) Read(from uint64, maxBytes int64, dst []Record) ([]Record, error) {
	defer s.tell()
	s.reading.Lock()
	defer s.reading.Unlock()
	r := &s.reader
	if from < r.next {
		r.decoded, r.given = r.decoded[:0], 0
		r.next = from
	}
	for had := len(dst); len(dst) == had; {
		if r.given == len(r.decoded) {
			more, err := s.fetch(max(from, r.next))
			if err != nil {
				return dst, fmt.Errorf("read: %w", err)
			}
			if !more {
				return dst, nil
			}
		}
		dst = s.hand(dst, from, maxBytes)
	}
	return dst, nil
}

// hand moves what is decoded, and still unsettled, to dst: the first one in any case, then as long as maxBytes are not exceeded.
func (s *Spool) hand(dst []Record, from uint64, maxBytes int64) []Record {
	r := &s.reader
	had := len(dst)
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; r.given < len(r.decoded); r.given++ {
		rec := &r.decoded[r.given]
		if rec.Seq >= from && s.isLive(rec.Seq) {
			if maxBytes -= int64(len(rec.Data)); maxBytes < 0 && len(dst) > had {
				break
			}
			dst = append(dst, *rec)
		}
		r.next = rec.Seq + 1
	}
	return dst
}

// isLive: it is in a segment, and not settled. mu is held.
func (s *Spool) isLive(seq uint64) bool {
	sg := s.reader.sg
	if sg == nil || sg.gone || seq < sg.first || sg.count == 0 || seq > sg.last() {
		if sg = s.find(seq); sg == nil {
			return false
		}
	}
	return !sg.isSettled(uint32(seq - sg.first))
}

// fetch decodes the next records, beginning with from or the first one after it. false: there are none.
func (s *Spool) fetch(from uint64) (bool, error) {
	r := &s.reader
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return false, ErrClosed
		}
		sg := s.segmentFrom(from)
		if sg == nil {
			s.mu.Unlock()
			return false, nil
		}
		from = max(from, sg.first+uint64(sg.low))
		end, count := sg.end, sg.count
		s.mu.Unlock()

		if sg != r.sg || sg.first+uint64(r.sc.next) > from {
			if err := s.openReader(sg); err != nil {
				if !s.lostFile(sg, err) {
					return false, err
				}
				continue
			}
		}
		r.sc.end = end
		more, err := s.decode(sg, from, count)
		if more || err != nil {
			return more, err
		}
		s.mu.Lock()
		if !sg.gone && sg.count >= count { // or else others hold what it had from there on
			from = sg.first + uint64(count)
		}
		s.mu.Unlock()
	}
}

// segmentFrom returns the segment with the first unsettled record from seq on. mu is held.
func (s *Spool) segmentFrom(seq uint64) *segment {
	for _, sg := range s.segs {
		if sg.last() >= seq && sg.live > 0 {
			return sg
		}
	}
	return nil
}

func (s *Spool) openReader(sg *segment) error {
	r := &s.reader
	r.close()
	f, err := s.fs.OpenFile(sg.path, os.O_RDONLY)
	if err != nil {
		return err
	}
	r.sg, r.f, r.tries = sg, f, 0
	r.sc = newScanner(f, sg.salt, framesStart, 0)
	r.sc.buf = r.buf
	r.sc.size = s.o.readBytes
	return nil
}

// lostFile gives up a segment that is not there, or that cannot be opened at all. false: err is for the caller of Read.
func (s *Spool) lostFile(sg *segment, err error) bool {
	r := &s.reader
	r.tries++
	cause := Unreadable
	switch {
	case errors.Is(err, os.ErrNotExist) && r.tries == 1 && !s.readOnly:
		s.appending.Lock()
		defer s.appending.Unlock()
		return s.vanished() == nil // what we still have open was saved
	case errors.Is(err, os.ErrNotExist):
		cause = Missing
	case !unreadable(err) || r.tries < readTries:
		return false
	}
	r.tries = 0
	s.appending.Lock()
	defer s.appending.Unlock()
	s.settling.Lock()
	defer s.settling.Unlock()
	s.mu.Lock()
	live := !sg.gone && sg.live > 0
	if s.active == sg { // what is appended from now on must not go where nobody finds it
		s.active = nil
	}
	s.mu.Unlock()
	d := Damage{Cause: cause, Bytes: sg.size, Err: err}
	if live && cause == Unreadable { // or else it was settled meanwhile, or another file has its name
		sg.broken = err
		d.Aside, _ = s.moveAside(sg)
	}
	s.changeSettling(func() bool {
		s.lose(sg, 0, sg.count, d)
		return true // it may be the active one no longer
	})
	return true
}

// decode reads the next batch from one segment: what one read of the file gives. false: it has no more records.
func (s *Spool) decode(sg *segment, from uint64, count uint32) (bool, error) {
	r := &s.reader
	r.decoded, r.given = r.decoded[:0], 0
	for r.sc.next < count {
		r.sc.pinned = len(r.decoded) > 0
		err := r.sc.scan()
		fr, h := &r.sc.fr, &r.sc.gap
		switch {
		case err == errPinned:
			return true, nil
		case err != nil && err != io.EOF:
			if unreadable(err) {
				r.sc.failed(err)
			}
			return false, err
		}
		upto := fr.ordinal
		if err == io.EOF {
			upto = count
			r.sc.next = count
		}
		if upto > h.from && !s.damaged(sg, h.from, upto, h.damage()) {
			break // they are elsewhere: what is behind them must wait
		}
		if err == io.EOF || sg.first+uint64(fr.ordinal)+uint64(fr.count) <= from {
			continue
		}
		if r.decoded, err = r.codec.decode(r.decoded, fr, sg.first+uint64(fr.ordinal)); err != nil &&
			!s.damaged(sg, fr.ordinal, fr.ordinal+fr.count, fr.damage(err)) {
			break
		}
	}
	return len(r.decoded) > 0, nil
}

// damaged sets the bytes aside and gives the records up, unless all of them are settled. With appending held nobody writes the segment anew:
// what was read may be the file that is about to take its place. false: it has been written anew, and others hold the records.
func (s *Spool) damaged(sg *segment, from, to uint32, d Damage) bool {
	s.appending.Lock()
	defer s.appending.Unlock()
	s.mu.Lock()
	here, live := !sg.gone && to <= sg.count, false
	for ord := from; ord < min(to, sg.count) && !live; ord++ {
		live = !sg.gone && !sg.isSettled(ord)
	}
	s.mu.Unlock()
	if live {
		d.Aside = s.setAside(sg, d)
		s.change(func() bool { return s.lose(sg, from, to, d) })
	}
	return here
}

func (r *reader) close() {
	if r.f != nil {
		_ = r.f.Close()
	}
	if r.sc != nil {
		r.buf = r.sc.buf
	}
	r.f, r.sg, r.sc = nil, nil, nil
}
