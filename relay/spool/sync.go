package spool

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"
)

// Sync returns nil once everything appended before the call is on the disk, and what was settled. One fsync serves all who wait.
// After an error nothing is known to be lost, only not to be safe: the next Sync, or the spool's own, makes up for it.
func (s *Spool) Sync() error {
	defer s.tell()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if err := s.sync(true); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

func (s *Spool) sync(settled bool) error {
	err := s.syncData()
	if settled {
		err = errors.Join(err, s.syncSettled())
	}
	s.mu.Lock()
	s.syncErr = err
	s.mu.Unlock()
	return err
}

// round is one fsync of all that is dirty, and those who wait for it.
type round struct {
	upto uint64 // appends covered
	done chan struct{}
	err  error // once done is closed
}

func (s *Spool) syncData() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for target := s.written; s.synced < target || s.newNames; {
		r := s.round
		if r == nil {
			r = s.lead()
		} else {
			s.mu.Unlock()
			<-r.done
			s.mu.Lock()
		}
		if r.upto >= target {
			return r.err
		}
	}
	return nil
}

// lead makes a round, of which there is none now. mu is held, but not while the disk works.
func (s *Spool) lead() *round {
	r := &round{upto: s.written, done: make(chan struct{})}
	s.round = r
	s.mu.Unlock()
	r.err = s.flush()
	s.mu.Lock()
	if r.err == nil {
		s.synced = r.upto
	}
	s.round = nil
	close(r.done)
	return r
}

// item is a dirty segment as it was when a flush began.
type item struct {
	sg     *segment
	f      File
	count  uint32
	end    int64
	sealed bool
}

// flush makes durable what has been appended: first which files there are, then each of them, oldest first. It ends with the first segment
// that can neither be fsynced nor be written anew: a disk that fails for long has spoilt one file then, and each attempt costs the same. Only
// one runs at a time.
func (s *Spool) flush() error {
	items, ghosts, names := s.dirtyItems()
	var err error
	if names {
		err = s.syncNames(ghosts)
	}
	named := err == nil
	for _, it := range items {
		if failed := s.flushSegment(it, named); failed != nil {
			err = errors.Join(err, failed)
			break
		}
	}
	s.settling.Lock()
	s.writeCursor() // with what is durable now
	s.settling.Unlock()
	return err
}

func (s *Spool) dirtyItems() (items []item, ghosts []*segment, names bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, s.newNames = s.newNames, false
	for _, sg := range s.ghosts {
		if sg.unlinked {
			ghosts = append(ghosts, sg)
		}
	}
	for _, sg := range s.segs {
		if sg.dirty() {
			items = append(items, item{sg, sg.f, sg.count, sg.end, sg.sealed})
		}
	}
	return items, ghosts, names
}

// syncNames makes durable which files there are, and with that the removal of ghosts.
func (s *Spool) syncNames(ghosts []*segment) error {
	err := s.fs.SyncDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		s.appending.Lock()
		err = s.vanished()
		s.appending.Unlock()
		if err == nil {
			err = s.fs.SyncDir(s.dir)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.newNames = true
		return err
	}
	for _, sg := range ghosts {
		s.ghosts = without(s.ghosts, sg)
	}
	return nil
}

// flushSegment fsyncs a segment, or else writes it anew. Only if its name is durable is it so itself.
func (s *Spool) flushSegment(it item, named bool) error {
	err := s.fsync(it)
	if err == nil && (!named || s.credit(it)) {
		return nil
	}
	s.appending.Lock()
	defer s.appending.Unlock()
	if errors.Is(err, os.ErrNotExist) {
		if err := s.vanished(); err != nil {
			return err
		}
	}
	return s.mend(it.sg)
}

var errAbandoned = errors.New("spool: segment abandoned after a failed write")

// fsync returns os.ErrNotExist if the file is no longer in its directory.
func (s *Spool) fsync(it item) (err error) {
	f := it.f
	if f == nil {
		if f, err = s.fs.OpenFile(it.sg.path, os.O_RDWR); err != nil {
			return err
		}
		defer f.Close()
	}
	if linked, err := f.Linked(); err != nil || !linked {
		return cmp.Or(err, os.ErrNotExist)
	}
	s.mu.Lock()
	abandoned := it.sg.abandoned
	s.mu.Unlock()
	if abandoned {
		return errAbandoned
	}
	return f.Sync()
}

// credit notes that what was in a segment is durable. false: it has been abandoned meanwhile.
func (s *Spool) credit(it item) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sg := it.sg
	if sg.gone || sg.abandoned {
		return sg.gone
	}
	sg.durable, sg.safeEnd = it.count, it.end
	if it.sealed {
		s.release(sg)
	}
	return true
}

// syncSettled puts on the disk what was settled. One at a time: who comes second would not wait for the fsync of the first.
func (s *Spool) syncSettled() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	err := s.syncCursor()
	s.settling.Lock()
	defer s.settling.Unlock()
	return errors.Join(err, s.unlinkDoomed())
}

// syncCursor fsyncs the cursor if anything was settled since it was last done.
func (s *Spool) syncCursor() error {
	s.settling.Lock()
	defer s.settling.Unlock()
	s.mu.Lock()
	dirty := s.cursorDirty
	s.mu.Unlock()
	if !dirty {
		return nil
	}
	c := &s.cursor
	if c.look(); c.f == nil {
		s.writeCursor()
	}
	s.mu.Lock()
	if c.f == nil {
		defer s.mu.Unlock()
		return s.cursorErr
	}
	s.cursorDirty = false
	s.mu.Unlock()
	f, slot := c.f, c.last
	c.syncing = slot

	s.settling.Unlock() // settling goes on meanwhile, in other slots
	err := f.Sync()
	s.settling.Lock()

	if c.f != f {
		return err
	}
	c.syncing = -1
	if err == nil {
		c.synced = slot
		return nil
	}
	c.giveUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursorErr, s.cursorDirty = err, true
	return err
}

// run is the spool's own goroutine.
func (s *Spool) run() {
	defer s.done.Done()
	wait := s.o.SyncInterval
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-timer.C:
		}
		err := s.sync(true)
		s.tell()
		wait = s.o.SyncInterval
		if err != nil {
			wait = max(wait, min(5*time.Second, 16*wait)) // a failing disk is not helped by haste
		}
		timer.Reset(wait)
	}
}

// Close seals the active segment, syncs (unless SyncNever), and closes the files. Calls that come later get ErrClosed.
func (s *Spool) Close() error {
	defer s.tell()
	s.appending.Lock()
	s.mu.Lock()
	again := s.closed
	s.closed = true
	active := s.active
	s.mu.Unlock()
	if again {
		s.appending.Unlock()
		return nil
	}
	if active != nil {
		s.seal()
	}
	s.writer.codec.close()
	s.appending.Unlock()
	if s.stop != nil {
		close(s.stop)
		s.done.Wait()
	}
	s.settling.Lock()
	s.writeCursor()
	s.settling.Unlock()
	var err error
	if s.o.Sync != SyncNever {
		err = s.sync(true)
	}
	s.settling.Lock()
	s.cursor.giveUp()
	s.cursor.closed = true
	s.settling.Unlock()
	s.mu.Lock()
	for _, sg := range s.segs {
		s.release(sg)
	}
	s.mu.Unlock()
	s.reading.Lock()
	s.reader.close()
	s.reading.Unlock()
	if err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
