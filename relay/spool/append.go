package spool

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

const (
	chunkBytes = 1280 << 10 // of one write: half of it costs a tenth more (Linux 6.18, ext4); the buffer writes 1 MiB at a time, and the frames come on top
	checkBytes = 8 << 20    // written between two looks at the file system: free space, and whether our files are still in it
)

// writer is what Append keeps from one call to the next. Guarded by Spool.appending.
type writer struct {
	codec  codec
	buf    []byte
	budget int64 // bytes that may be written before the file system is asked again
	credit int64 // bytes freed by DropOldest: these may be written although space is low
}

// Append writes records at the end: their sequence numbers must rise, also from one call to the next and over restarts.
// Gaps are allowed, but each costs a new segment. When it returns, n records are with the operating system, and with
// SyncEach on the disk; err says why it was not all of them: ErrFull, ErrLowSpace, ErrTooLarge (recs[n] can never be
// stored), or the disk's own, wrapped. Or all are in, and with SyncEach the fsync failed: then they can be read, but
// a loss of power may cost them; a later Sync that returns nil has made up for it.
// A record is in whole or not at all. The spool does not keep recs.
func (s *Spool) Append(recs []Record) (n int, err error) {
	defer s.tell()
	s.appending.Lock()
	n, err = s.append(recs)
	s.appending.Unlock()
	if n > 0 && s.o.Sync == SyncEach {
		err = errors.Join(err, s.sync(false))
	}
	if err != nil {
		err = fmt.Errorf("append: %w", err)
	}
	return n, err
}

func (s *Spool) append(recs []Record) (n int, err error) {
	if err := s.admit(recs); err != nil {
		return 0, err
	}
	for n < len(recs) && err == nil {
		if len(recs[n].Data) > MaxRecord || int64(len(recs[n].Data)) > s.o.MaxBytes-framesStart-frameHeader-footerSize {
			return n, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(recs[n].Data))
		}
		var k int
		k, err = s.appendChunk(recs[n:])
		n += k
	}
	return n, err
}

// admit refuses calls that the caller should not have made.
func (s *Spool) admit(recs []Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.readOnly {
		return ErrClosed
	}
	last := s.last
	for i := range recs {
		if recs[i].Seq <= last {
			return fmt.Errorf("%w: %d after %d", ErrOrder, recs[i].Seq, last)
		}
		last = recs[i].Seq
	}
	return nil
}

// appendChunk writes as many of recs as go into one write to one segment: at least one, unless there is an error.
func (s *Spool) appendChunk(recs []Record) (int, error) {
	w := &s.writer
	sg := s.active // only written with appending held
	if sg != nil && (recs[0].Seq != sg.last()+1 || s.isFull(sg)) {
		s.seal()
		sg = nil
	}
	fresh := sg == nil
	if fresh {
		sg = s.newSegment(recs[0])
	}
	if cap(w.buf) > 4*chunkBytes {
		w.buf = nil
	}
	w.buf = w.buf[:0]
	if fresh {
		w.buf = append(w.buf, sg.header()...)
	}
	n, err := s.fill(sg, recs, s.left())
	if err == ErrFull && !fresh && s.unused(sg) {
		s.seal() // and with that unlink it
		return s.appendChunk(recs)
	}
	if err != nil {
		return 0, err
	}
	if err := s.room(sg, int64(len(w.buf))); err == errMoved {
		return s.appendChunk(recs)
	} else if err != nil {
		return 0, err
	}
	if fresh {
		if err := s.create(sg); err != nil {
			return 0, diskError(err)
		}
	}
	if _, err := sg.f.WriteAt(w.buf, sg.size); err != nil {
		s.abandonWrite(sg, fresh)
		return 0, diskError(err)
	}
	s.enter(sg, fresh, recs[:n], int64(len(w.buf)))
	return n, nil
}

// enter makes records readable that have been written to the segment, which took so many bytes.
func (s *Spool) enter(sg *segment, fresh bool, recs []Record, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fresh {
		s.segs = append(s.segs, sg)
		s.active = sg
	}
	sg.grow(recs, bytes)
	s.bytes += bytes
	s.last = sg.last()
	s.written++
}

func (s *Spool) isFull(sg *segment) bool { return sg.end >= s.o.SegmentBytes || sg.count >= maxCount }

// left is what MaxBytes allows to be written, a footer aside.
func (s *Spool) left() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.o.MaxBytes - s.bytes - footerSize
}

func (s *Spool) unused(sg *segment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sg.live == 0
}

// fill appends frames to the writer's buffer: consecutive records, until the chunk or the segment is full or the buffer
// would exceed limit.
func (s *Spool) fill(sg *segment, recs []Record, limit int64) (n int, err error) {
	w := &s.writer
	for n < len(recs) && len(w.buf) < chunkBytes && recs[n].Seq == recs[0].Seq+uint64(n) {
		if n > 0 && (sg.size+int64(len(w.buf)) >= s.o.SegmentBytes || sg.count+uint32(n) >= maxCount) {
			break
		}
		before, k, ordinal := len(w.buf), 1, sg.count+uint32(n)
		if s.o.Compression == None {
			if int64(len(w.buf)+frameHeader+len(recs[n].Data)) > limit {
				break
			}
			w.buf = appendRecord(w.buf, sg.salt, ordinal, &recs[n])
		} else if w.buf, k, err = w.codec.appendRun(w.buf, s.o.Compression, sg.salt, ordinal, recs[n:]); err != nil {
			return 0, err
		}
		if int64(len(w.buf)) > limit {
			w.buf = w.buf[:before]
			break
		}
		n += k
	}
	if n == 0 {
		return 0, ErrFull
	}
	return n, nil
}

// errMoved: the active segment is no longer what it was; begin again.
var errMoved = errors.New("spool: segment moved")

// room asks, every few MiB, whether the file system has room for n more bytes, and whether the segment is still in it.
func (s *Spool) room(sg *segment, n int64) error {
	w := &s.writer
	if w.budget >= n {
		w.budget -= n
		return nil
	}
	w.budget = 0
	if sg.f != nil && unlinked(sg.f) {
		return cmp.Or(s.vanished(), errMoved)
	}
	if s.o.MinFree <= 0 {
		w.budget = max(checkBytes-n, 0)
		return nil
	}
	free, err := s.fs.Free(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil // create will see to it
	}
	if err != nil {
		return err
	}
	if free-s.o.MinFree >= n {
		w.budget = min(free-s.o.MinFree, checkBytes) - n
		w.credit = 0
		return nil
	}
	if w.credit >= n {
		w.credit -= n
		return nil
	}
	return fmt.Errorf("%w: %d bytes free, %d to be kept", ErrLowSpace, free, s.o.MinFree)
}

func (s *Spool) newSegment(first Record) *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	sg := &segment{
		path: filepath.Join(s.dir, segmentName(first.Seq)), salt: rand.Uint32() | 1, spool: s.id,
		first: first.Seq, firstTime: first.Time, safeEnd: framesStart,
	}
	if i := s.index(first.Seq); i > 0 {
		sg.prevFirst, sg.prevLast = s.segs[i-1].first, s.segs[i-1].last()
	}
	return sg
}

// create makes the file, and the directory if that has vanished.
func (s *Spool) create(sg *segment) error {
	f, err := createFile(s.fs, sg.path)
	if errors.Is(err, os.ErrNotExist) {
		buf := s.writer.buf // what is to go into this file: others may be written first
		s.writer.buf = nil
		err = s.vanished()
		s.writer.buf = buf
		if err == nil {
			f, err = createFile(s.fs, sg.path)
		}
	}
	if err != nil {
		return err
	}
	sg.f = f
	s.mu.Lock()
	s.newNames = true
	s.mu.Unlock()
	return nil
}

// seal ends the active segment with its footer. Whether the footer gets there is of no importance to the records: without
// it the next Open scans them.
func (s *Spool) seal() {
	sg := s.active
	_, err := sg.f.WriteAt(sg.footer(), sg.end)
	s.mu.Lock()
	s.active = nil
	sg.sealed = true
	if err == nil {
		sg.size += footerSize
		s.bytes += footerSize
	} else {
		sg.abandoned = true
	}
	if s.o.Sync == SyncNever {
		s.release(sg) // a Sync, should one come, opens it again
	}
	s.mu.Unlock()
	if s.unused(sg) {
		s.change(func() bool { return true })
	}
}

// release closes a segment's file for writing. mu is held.
func (s *Spool) release(sg *segment) {
	if sg.f != nil {
		_ = sg.f.Close()
		sg.f = nil
	}
}

// abandonWrite gives up a segment in which a write failed: it is never written to or fsynced again (vector #14455). What is
// in it already can be read; what of it is not durable is written anew with the next sync. The half-written end is cut
// off, if that can be done, so that it does not come back after a restart.
func (s *Spool) abandonWrite(sg *segment, fresh bool) {
	_ = sg.f.Truncate(sg.end)
	if fresh {
		_ = sg.f.Close()
		_ = s.fs.Remove(sg.path)
		return
	}
	s.mu.Lock()
	s.abandon(sg)
	s.mu.Unlock()
	if s.unused(sg) {
		s.change(func() bool { return true })
	}
}

func diskError(err error) error {
	if diskFull(err) {
		return fmt.Errorf("%w: %w", ErrLowSpace, err)
	}
	return err
}

// DropOldest gives up the oldest segment with all that is in it, to make room for new records: also when the disk is full,
// and also the segment that is being written if it is the only one. The room that it gives back may be used again although
// the file system has less than MinFree. An error says that the file could not be removed; then nothing was given up.
func (s *Spool) DropOldest() (Dropped, error) {
	defer s.tell()
	s.appending.Lock()
	defer s.appending.Unlock()
	s.settling.Lock()
	defer s.settling.Unlock()
	s.mu.Lock()
	if s.closed || len(s.segs) == 0 {
		s.mu.Unlock()
		return Dropped{}, nil
	}
	sg := s.segs[0]
	d := Dropped{First: sg.first, Last: sg.last(), Records: sg.live, Bytes: sg.size}
	s.mu.Unlock()
	if err := s.fs.Remove(sg.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Dropped{}, fmt.Errorf("drop oldest: %w", err)
	}
	s.writer.credit += d.Bytes
	s.mu.Lock()
	if s.active == sg {
		s.active = nil
	}
	sg.settleBelow(sg.count)
	s.cursorDirty = true
	dead := s.reap()
	s.mu.Unlock()
	s.writeCursor()
	_ = s.unlink(dead)
	return d, nil
}
