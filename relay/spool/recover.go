package spool

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Open opens the spool in dir, and makes the directory if need be. Damage does not keep it from opening, it is reported.
// The errors are: a *VersionError, the disk's own, or Options that make no sense.
//
// Opening reads the ends of each file. Only a segment without a footer is scanned: the last one after a crash. The caller
// holds the lock of the state directory (LockDir); nothing here keeps two processes apart.
func Open(dir string, o Options) (*Spool, error) {
	s, err := open(dir, o, false)
	if err != nil {
		return nil, fmt.Errorf("open spool %s: %w", dir, err)
	}
	if o.Sync != SyncNever {
		s.stop = make(chan struct{})
		s.done.Add(1)
		go s.run()
	}
	s.tell()
	return s, nil
}

const maxSegment, minSegment = 64 << 20, 1 << 20

func open(dir string, o Options, readOnly bool) (*Spool, error) {
	if o.FS == nil {
		o.FS = osFS{}
	}
	if o.SyncInterval <= 0 {
		o.SyncInterval = 200 * time.Millisecond
	}
	if o.MaxBytes <= 0 && !readOnly {
		return nil, errors.New("Options.MaxBytes is mandatory")
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = min(max(o.MaxBytes/8, minSegment), maxSegment, o.MaxBytes)
	}
	if readOnly {
		o.Sync = SyncNever
	}
	if o.readBytes <= 0 {
		o.readBytes = scanBuffer
	}
	s := &Spool{fs: o.FS, dir: dir, o: o, readOnly: readOnly}
	s.cursor = cursorFile{fs: o.FS, path: filepath.Join(dir, cursorName)}
	if !readOnly {
		if err := s.makeDir(); err != nil {
			return nil, err
		}
	}
	if err := s.load(); err != nil {
		s.cursor.giveUp()
		return nil, err
	}
	if !readOnly {
		s.tidy()
	}
	return s, nil
}

func (s *Spool) makeDir() error {
	if err := s.fs.MkdirAll(s.dir); err != nil {
		return err
	}
	_ = s.fs.SyncDir(filepath.Dir(s.dir)) // may not be ours to open
	return nil
}

// load finds out what is there. It changes nothing on disk but for damaged/.
func (s *Spool) load() error {
	if err := s.findSegments(); err != nil {
		return err
	}
	m, forgotten, err := s.loadCursor()
	if err != nil {
		return err
	}
	// From here on nothing is refused any more.
	losses, err := s.measureAll(&m)
	if err != nil {
		return err
	}
	s.adopt(&m, forgotten, losses)
	return nil
}

// findSegments makes the list of segments, from what their ends say.
func (s *Spool) findSegments() error {
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		first, ok := parseName(name)
		if !ok {
			continue
		}
		sg := &segment{path: filepath.Join(s.dir, name), first: first}
		switch err := s.openSegment(sg); {
		case errors.Is(err, errNoHeader) || unreadable(err):
			sg.broken = err
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return err
		}
		s.segs = append(s.segs, sg)
	}
	return nil
}

// measureAll measures each segment, and returns all that is missing.
func (s *Spool) measureAll(m *mark) (losses []loss, err error) {
	var last uint64
	for i, sg := range s.segs {
		var next *segment // a file without a header says nothing about others
		for j := i + 1; j < len(s.segs) && next == nil; j++ {
			if s.segs[j].broken == nil {
				next = s.segs[j]
			}
		}
		ls, err := s.measure(sg, next, m)
		if err != nil {
			return nil, err
		}
		if sg.broken != nil && sg.first <= last {
			sg.count = 0 // and nothing about the records of a sound one
			for i := range ls {
				ls[i].from, ls[i].to = 0, 0
			}
		}
		if sg.count > 0 {
			last = sg.last()
		}
		losses = append(losses, ls...)
		// Its records may be unknown, but its name has been used: should a loss of power bring back what is removed or cut
		// below, no new record may have come to lie behind it in an older segment.
		s.last = max(s.last, sg.first)
	}
	return losses, nil
}

func (s *Spool) openSegment(sg *segment) (err error) {
	for range readTries {
		var f File
		if f, err = s.fs.OpenFile(sg.path, os.O_RDONLY); err == nil {
			err = sg.open(f)
			_ = f.Close()
		}
		if !unreadable(err) {
			break
		}
	}
	return err
}

// loadCursor reads the cursor, and decides whether it is this spool's. Another one's would pass messages for delivered.
func (s *Spool) loadCursor() (m mark, forgotten bool, err error) {
	m, damaged, err := s.cursor.load(s.readOnly)
	if err != nil {
		return m, false, err
	}
	for _, sg := range s.segs {
		if sg.spool != 0 {
			s.id = sg.spool
		}
	}
	if s.id == 0 {
		s.id = m.spool
	}
	for s.id == 0 {
		s.id = rand.Uint64()
	}
	if m.spool != 0 && m.spool != s.id {
		return mark{last: m.last}, true, nil
	}
	return m, damaged, nil
}

// loss is a hole in a segment: ordinals from up to, and not including, to.
type loss struct {
	sg       *segment
	from, to uint32
	Damage
}

// measure finds out which records a segment holds, and which it should hold and does not.
func (s *Spool) measure(sg, next *segment, m *mark) (losses []loss, err error) {
	most := uint64(2 * maxCount) // an abandoned segment ends where the next one begins
	if next != nil {
		most = min(most, next.first-sg.first)
	}
	if uint64(sg.count) > most { // sealed, then abandoned; and its end could not be cut off
		sg.sealed = false
	}
	switch {
	case sg.broken != nil:
		sg.end, sg.count, sg.sealed = 0, 0, false
	case !sg.sealed:
		if losses, err = s.rescan(sg, uint32(most)); err != nil {
			return nil, err
		}
	}
	found := uint64(sg.count)
	if !sg.sealed {
		last, known := lastOf(sg, next, m)
		h := hole{off: sg.end, bytes: sg.size - sg.end}
		if unreadable(sg.broken) {
			h.err = sg.broken
		}
		d := h.damage()
		d.File = sg.name()
		if total := min(last-sg.first+1, most); last >= sg.first && total > found {
			losses = append(losses, loss{sg, uint32(found), uint32(total), d})
			found = total
		} else if h.bytes > 0 {
			if known || found == most {
				d.Cause = Torn
			}
			losses = append(losses, loss{sg, 0, 0, d})
		}
	}
	sg.count = uint32(min(found, most))
	sg.live = int(sg.count)
	return losses, nil
}

// lastOf asks the cursor or the segment behind for the last record that was in a segment. Of a record that was
// appended to the last segment, but is newer than the last fsync, nobody knows.
func lastOf(sg, next *segment, m *mark) (last uint64, known bool) {
	switch {
	case next == nil && m.storedIn == sg.first:
		return m.stored, true
	case next == nil:
		return 0, true
	case next.prevFirst == sg.first:
		return next.prevLast, true
	}
	return 0, false
}

// rescan finds the records of a segment without a footer.
func (s *Spool) rescan(sg *segment, most uint32) (losses []loss, err error) {
	f, err := s.fs.OpenFile(sg.path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sc := newScanner(f, sg.salt, framesStart, sg.size)
	sg.end, sg.count = min(framesStart, sg.size), 0
	for {
		err := sc.scanOn()
		fr, h := &sc.fr, &sc.gap
		if err == io.EOF || err == nil && fr.ordinal >= most {
			sg.abandoned = h.err != nil // perhaps it can be read another day: leave it alone
			return losses, nil
		}
		if err != nil {
			return nil, err
		}
		if fr.ordinal > h.from {
			losses = append(losses, loss{sg, h.from, fr.ordinal, h.damage()})
		}
		sg.count = min(fr.ordinal+fr.count, most)
		sg.end = fr.off + fr.size()
		sg.lastTime = fr.time
	}
}

// adopt puts together what load has found.
func (s *Spool) adopt(m *mark, forgotten bool, losses []loss) {
	for i := range losses {
		l := &losses[i]
		switch {
		case l.sg.broken != nil || l.sg.count == 0:
			l.Aside, _ = s.moveAside(l.sg)
		case l.to > 0 || l.Cause != Torn || l.wholeFrame(s):
			l.Aside = s.setAside(l.sg, l.Damage)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sg := range s.segs {
		s.bytes += sg.size
		if sg.count > 0 {
			s.last = max(s.last, sg.last())
		}
	}
	s.segs = slices.DeleteFunc(s.segs, func(sg *segment) bool {
		if sg.count == 0 {
			s.doomed = append(s.doomed, sg)
		}
		return sg.count == 0
	})
	s.apply(m)
	for _, sg := range s.segs {
		if sg.last() <= s.stored {
			sg.durable, sg.safeEnd = sg.count, sg.end
		} else { // the process before this one has not fsynced it
			sg.safeEnd = framesStart
		}
	}
	if forgotten {
		s.reports = append(s.reports, Damage{Cause: Forgotten, File: cursorName})
	}
	for _, l := range losses {
		if l.to == 0 {
			s.reports = append(s.reports, l.Damage)
		} else {
			s.lose(l.sg, l.from, l.to, l.Damage)
		}
	}
}

// tidy makes the files what load took them for: it cuts torn ends, seals what has no footer, removes what is done or
// half made. None of it is needed for correctness, so a disk that refuses changes nothing but the time the next Open takes.
func (s *Spool) tidy() {
	s.newNames = s.fs.SyncDir(s.dir) != nil // what is removed already must not come back once the cursor no longer speaks of it
	names, _ := s.fs.ReadDir(s.dir)
	for _, name := range names {
		if strings.HasSuffix(name, tmpSuffix) {
			_ = s.fs.Remove(filepath.Join(s.dir, name))
		}
	}
	s.mu.Lock()
	dead := append(s.reap(), s.doomed...)
	s.doomed = nil
	damaged := len(s.reports) > 0 // which is to be reported once
	s.mu.Unlock()
	// The newest slot may not be on the disk: a new one is, whatever an earlier fsync of it has come to.
	if s.cursor.f != nil || damaged {
		s.writeCursor()
	}
	if c := &s.cursor; c.f != nil {
		if c.f.Sync() == nil {
			c.synced = c.last
		} else {
			c.giveUp()
		}
	}
	_ = s.unlink(dead)
	for _, sg := range s.segs {
		if !sg.sealed && !sg.abandoned {
			s.cutOff(sg, nil, sg.end)
		}
		if sg.dirty() {
			s.written = 1
		}
	}
}

// wholeFrame: a torn end begins with something that looks like all of a frame, so perhaps it is not torn but damaged.
func (l *loss) wholeFrame(s *Spool) bool {
	f, err := s.fs.OpenFile(l.sg.path, os.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	b, err := readAt(f, l.Offset, frameHeader)
	if err != nil || len(b) < frameHeader {
		return false
	}
	need, _ := new(frame).parse(b, l.sg.salt)
	return need > len(b) && int64(need) <= l.Bytes
}
