package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// What is damaged is kept in damaged/, for whoever wants to look at it or knows how to mend it: what comes first, up to a bound.
const (
	asideName  = "damaged"
	asideBytes = 64 << 20
	asidePiece = 1 << 20 // of one place
)

type asideDir struct {
	mu    sync.Mutex
	known bool
	bytes int64
}

// setAside copies damaged bytes of a segment, and returns the copy's path, or "" if there is none. No lock but
// appending or reading is held.
func (s *Spool) setAside(sg *segment, d Damage) string {
	if s.readOnly || d.Bytes == 0 || d.Err != nil {
		return ""
	}
	f, err := s.fs.OpenFile(sg.path, os.O_RDONLY)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := readAt(f, d.Offset, int(min(d.Bytes, asidePiece)))
	if err != nil {
		return ""
	}
	path := filepath.Join(s.dir, asideName, fmt.Sprintf("%020d-%d", sg.first, d.Offset))
	if !s.asideRoom(int64(len(b))) {
		return ""
	}
	out, err := s.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return ""
	}
	defer out.Close()
	if _, err := out.WriteAt(b, 0); err != nil {
		_ = s.fs.Remove(path)
		return ""
	}
	_ = out.Sync()
	return path
}

// moveAside takes a segment of which nothing can be read out of the way. Once damaged/ is full it is removed instead.
func (s *Spool) moveAside(sg *segment) (string, error) {
	if s.readOnly {
		return "", nil
	}
	if !s.asideRoom(sg.size) {
		return "", s.fs.Remove(sg.path)
	}
	path := filepath.Join(s.dir, asideName, sg.name())
	if err := s.fs.Rename(sg.path, path); err != nil {
		s.asideRoom(-sg.size)
		return "", err
	}
	_ = s.fs.SyncDir(filepath.Dir(path))
	sg.broken = nil // it is not there to be moved again
	return path, nil
}

// asideRoom reports whether n more bytes fit into the bound, and takes them.
func (s *Spool) asideRoom(n int64) bool {
	a := &s.aside
	a.mu.Lock()
	defer a.mu.Unlock()
	dir := filepath.Join(s.dir, asideName)
	if !a.known {
		if err := s.fs.MkdirAll(dir); err != nil {
			return false
		}
		names, err := s.fs.ReadDir(dir)
		if err != nil {
			return false
		}
		for _, name := range names {
			if f, err := s.fs.OpenFile(filepath.Join(dir, name), os.O_RDONLY); err == nil {
				size, _ := f.Size()
				a.bytes += size
				_ = f.Close()
			}
		}
		a.known = true
	}
	if a.bytes+n > max(asideBytes, s.o.SegmentBytes) {
		return false
	}
	a.bytes += n
	return true
}
