package spool

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
)

// After a failed fsync the kernel may take the pages that it could not write for clean, and a second fsync of the same file
// succeeds without having written them (Rebello et al., "Can Applications Recover from fsync Failures?", 2020). So the
// records that were not durable yet are read back, checked by their CRCs, and written into new segments. The first
// sequence number of those bounds the old segment: whatever it holds from there on no longer counts.

// abandon gives a segment up for writing. mu is held.
func (s *Spool) abandon(sg *segment) {
	sg.abandoned = true
	if s.active == sg {
		s.active = nil
	}
}

// mend abandons a segment and writes anew what of it is not durable. appending is held.
func (s *Spool) mend(sg *segment) error {
	s.mu.Lock()
	s.abandon(sg)
	done := sg.gone || sg.durable == sg.count
	if done {
		s.release(sg)
	}
	from, off := sg.durable, sg.safeEnd
	s.mu.Unlock()
	if done {
		return nil
	}
	return s.rewrite(sg, from, off, Unsynced)
}

// vanished is called when a file that we write is no longer in its directory, or the directory is not there. What we
// hold open is written anew, what we do not is lost. appending is held.
func (s *Spool) vanished() error {
	if err := s.makeDir(); err != nil {
		return err
	}
	s.settling.Lock()
	s.cursor.look()
	s.settling.Unlock()
	s.mu.Lock()
	segs := slices.Clone(s.segs)
	s.cursorDirty = true
	s.mu.Unlock()
	var failed []*segment
	for _, sg := range segs {
		s.mu.Lock()
		f := sg.f
		s.mu.Unlock()
		if f == nil {
			f, err := s.fs.OpenFile(sg.path, os.O_RDONLY)
			if errors.Is(err, os.ErrNotExist) {
				s.change(func() bool { return s.lose(sg, 0, sg.count, Damage{Cause: Missing, Bytes: sg.size, Err: err}) })
			} else if err == nil {
				_ = f.Close()
			}
		} else if unlinked(f) {
			s.mu.Lock()
			sg.durable, sg.safeEnd = 0, framesStart
			s.abandon(sg) // an fsync that is under way makes nothing durable
			s.mu.Unlock()
			failed = append(failed, sg)
		}
	}
	for _, sg := range failed {
		if err := s.mend(sg); err != nil {
			return err // the others are dirty now
		}
	}
	return nil
}

// rewrite moves the records of sg from an ordinal on, whose frames begin at off, to new segments, and reports those that
// cannot be read. On an error nothing has changed. appending is held.
func (s *Spool) rewrite(sg *segment, from uint32, off int64, cause Cause) error {
	b := builder{s: s, cause: cause}
	holes, err := b.copy(sg, from, off)
	if err != nil {
		b.undo()
		s.mu.Lock()
		defer s.mu.Unlock()
		if sg.gone { // settled meanwhile, and its file closed
			return nil
		}
		return fmt.Errorf("write %s anew: %w", sg.name(), err)
	}
	if err := b.place(); err != nil {
		return fmt.Errorf("write %s anew: %w", sg.name(), err)
	}
	dirErr := s.fs.SyncDir(s.dir)
	for i := range holes {
		holes[i].Aside = s.setAside(sg, holes[i].Damage)
	}
	s.settling.Lock()
	defer s.settling.Unlock()
	s.mu.Lock()
	f := s.replace(sg, from, b.segs, holes, dirErr == nil)
	dead := s.reap()
	s.mu.Unlock()

	if from > 0 {
		s.cutOff(sg, f, off)
	}
	if f != nil {
		_ = f.Close()
	}
	s.writeCursor()
	_ = s.unlink(dead)
	_ = s.unlinkDoomed()
	return dirErr
}

// replace puts finished segments in the place of sg's records from an ordinal on, and returns the file of sg if it was open.
// mu and settling are held.
func (s *Spool) replace(sg *segment, from uint32, by []*segment, holes []loss, named bool) File {
	for _, d := range holes {
		s.lose(sg, d.from, d.to, d.Damage)
	}
	for _, fresh := range by {
		for i := range fresh.count {
			if sg.isSettled(uint32(fresh.first-sg.first) + i) {
				fresh.settle(i)
			}
		}
	}
	f := sg.f
	sg.f = nil
	sg.cut(from)
	if from == 0 {
		switch {
		case sg.gone: // settled meanwhile, it was counted off with its file
		case len(by) > 0 && by[0].path == sg.path:
			s.bytes -= sg.size
		default:
			s.doomed = append(s.doomed, sg)
		}
		sg.gone = true
		s.segs = without(s.segs, sg)
	}
	for _, fresh := range by {
		s.segs = slices.Insert(s.segs, s.index(fresh.first), fresh)
		s.bytes += fresh.size
		if !named {
			fresh.durable, fresh.safeEnd = 0, framesStart
		}
	}
	s.newNames = s.newNames || !named
	s.cursorDirty = true
	return f
}

// cutOff takes the end of a segment off that is torn, or that others have replaced, and seals it. f is its file, or nil: it is opened for the purpose.
// Should it fail, the first sequence number of the next segment says that the end does not count. The footer is for the time when that
// segment is done with: the one behind it was begun when this one was longer, and would have the end reported as missing.
func (s *Spool) cutOff(sg *segment, f File, off int64) {
	if f == nil {
		var err error
		if f, err = s.fs.OpenFile(sg.path, os.O_RDWR); err != nil {
			return
		}
		defer f.Close()
	}
	if f.Truncate(off) != nil {
		return
	}
	s.mu.Lock()
	s.bytes -= sg.size - off
	sg.size, sg.end, sg.sealed = off, off, false
	s.mu.Unlock()
	if _, err := f.WriteAt(sg.footer(), off); err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += footerSize
	sg.size, sg.sealed = off+footerSize, true
}

// builder writes whole segments under temporary names, and then puts them in place. appending is held.
type builder struct {
	s     *Spool
	cause Cause // of what copy cannot read
	segs  []*segment
}

const tmpSuffix = ".tmp"

// copy adds the readable records of sg from an ordinal on, whose frames begin at off.
func (b *builder) copy(sg *segment, from uint32, off int64) (losses []loss, err error) {
	b.s.mu.Lock()
	f := sg.f
	b.s.mu.Unlock()
	if f == nil {
		if f, err = b.s.fs.OpenFile(sg.path, os.O_RDONLY); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	sc := newScanner(f, sg.salt, off, sg.end)
	sc.next = from
	var batch []Record
	var size int
	for {
		err := sc.scanOn()
		fr, h := &sc.fr, &sc.gap
		if err != nil && err != io.EOF {
			return nil, err
		}
		upto := fr.ordinal
		if err == io.EOF {
			upto = sg.count
		}
		if upto > h.from {
			losses = append(losses, loss{sg, h.from, upto, Damage{Cause: b.cause, Offset: h.off, Bytes: h.bytes, Err: h.err}})
		}
		if err == io.EOF {
			break
		}
		mark := len(batch)
		if batch, err = b.s.writer.codec.decode(batch, fr, sg.first+uint64(fr.ordinal)); err != nil {
			losses = append(losses, loss{sg, fr.ordinal, fr.ordinal + fr.count, Damage{Cause: b.cause, Offset: fr.off, Bytes: fr.size()}})
		}
		for i := range batch[mark:] {
			r := &batch[mark+i]
			r.Data = slices.Clone(r.Data) // the scanner goes on
			size += len(r.Data)
		}
		if size >= chunkBytes {
			if err := b.add(batch); err != nil {
				return nil, err
			}
			batch, size = batch[:0], 0
		}
	}
	return losses, b.add(batch)
}

// add writes records.
func (b *builder) add(recs []Record) error {
	w := &b.s.writer
	for len(recs) > 0 {
		var sg *segment
		if n := len(b.segs); n > 0 {
			sg = b.segs[n-1]
		}
		w.buf = w.buf[:0]
		if sg == nil || sg.last()+1 != recs[0].Seq || b.s.isFull(sg) {
			if sg != nil {
				if err := b.finish(sg); err != nil {
					return err
				}
			}
			sg = b.s.newSegment(recs[0])
			f, err := createFile(b.s.fs, sg.path+tmpSuffix)
			if err != nil {
				return err
			}
			sg.f = f
			b.segs = append(b.segs, sg)
			w.buf = append(w.buf, sg.header()...)
		}
		n, err := b.s.fill(sg, recs, math.MaxInt64)
		if err != nil {
			return err
		}
		if _, err := sg.f.WriteAt(w.buf, sg.size); err != nil {
			return err
		}
		sg.grow(recs[:n], int64(len(w.buf)))
		recs = recs[n:]
	}
	return nil
}

// finish ends one segment.
func (b *builder) finish(sg *segment) error {
	if _, err := sg.f.WriteAt(sg.footer(), sg.end); err != nil {
		return err
	}
	sg.size += footerSize
	sg.sealed = true
	if err := sg.f.Sync(); err != nil {
		return err
	}
	sg.durable, sg.safeEnd = sg.count, sg.end
	err := sg.f.Close()
	sg.f = nil
	return err
}

// place ends the last segment and gives all of them their names, the first one last: only that one can take the place of
// a file that still counts.
func (b *builder) place() error {
	if n := len(b.segs); n > 0 {
		if err := b.finish(b.segs[n-1]); err != nil {
			b.undo()
			return err
		}
	}
	for i := len(b.segs) - 1; i >= 0; i-- {
		sg := b.segs[i]
		if err := b.s.fs.Rename(sg.path+tmpSuffix, sg.path); err != nil {
			for _, placed := range b.segs[i+1:] {
				_ = b.s.fs.Remove(placed.path)
			}
			b.segs = b.segs[:i+1]
			b.undo()
			return err
		}
	}
	return nil
}

func (b *builder) undo() {
	for _, sg := range b.segs {
		if sg.f != nil {
			_ = sg.f.Close()
		}
		_ = b.s.fs.Remove(sg.path + tmpSuffix)
	}
	b.segs = nil
}
