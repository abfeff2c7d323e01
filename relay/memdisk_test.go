package relay

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
)

// A memDisk is a disk in memory that fails as it is told to, and may lose its power. It outlives those who mount it.
type memDisk struct {
	mu     sync.Mutex
	files  map[string]*memFile // as the processes see it
	safe   map[string]*memFile // names that a loss of power leaves
	faults diskFaults
	calls  int // so far
}

// diskFaults are what a disk suffers from now; the zero value is one that works.
type diskFaults struct {
	fail map[string]syscall.Errno // by operation: open (to write), write, sync, remove, read
	low  bool                     // almost no space is left
	slow time.Duration            // an fsync takes
}

// A memFile keeps only what has been fsynced over a loss of power.
type memFile struct {
	data, safe []byte
	dirty      int  // data is safe up to here
	spoilt     bool // an fsync has failed: later ones succeed, and write nothing (as on Linux)
	unlinked   bool
}

func newMemDisk() *memDisk {
	return &memDisk{files: map[string]*memFile{}, safe: map[string]*memFile{}}
}

// mount returns the disk as one process sees it.
func (d *memDisk) mount() *memMount { return &memMount{disk: d} }

func (d *memDisk) set(f diskFaults) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = f
}

// unreadable reports whether it fails to read.
func (d *memDisk) unreadable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, fails := d.faults.fail["read"]
	return fails
}

// fails reports whether anything does.
func (d *memDisk) fails() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.faults.fail) > 0 || d.faults.low
}

func (d *memDisk) called() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

// segments returns how many segment files there are, those that were set aside left out.
func (d *memDisk) segments() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for name := range d.files {
		if strings.HasSuffix(name, ".seg") && filepath.Base(filepath.Dir(name)) != "damaged" {
			n++
		}
	}
	return n
}

// losePower leaves what was fsynced, under the names that were. Nobody has it mounted.
func (d *memDisk) losePower() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files = maps.Clone(d.safe)
	for name, f := range d.files {
		d.files[name] = &memFile{data: slices.Clone(f.safe), safe: slices.Clone(f.safe), dirty: len(f.safe)}
	}
	d.safe = maps.Clone(d.files)
}

// A memMount is a memDisk that a process has mounted, until that is killed.
type memMount struct {
	disk   *memDisk
	killed bool // guarded by disk.mu
}

var errKilled = errors.New("the process has been killed")

func (m *memMount) kill() {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	m.killed = true
}

// call counts, and fails if it is to. The lock is held.
func (m *memMount) call(op, name string) error {
	if m.killed {
		return errKilled
	}
	m.disk.calls++
	if errno, fails := m.disk.faults.fail[op]; fails {
		return &fs.PathError{Op: op, Path: name, Err: errno}
	}
	return nil
}

// do makes one call with the disk locked.
func (m *memMount) do(op, name string, fn func(d *memDisk) error) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if err := m.call(op, name); err != nil {
		return err
	}
	return fn(m.disk)
}

func (m *memMount) MkdirAll(string) error { return nil }

func (m *memMount) OpenFile(name string, flag int) (file spool.File, err error) {
	op := "look"
	if flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE) != 0 {
		op = "open"
	}
	err = m.do(op, name, func(d *memDisk) error {
		f := d.files[name]
		switch {
		case f == nil && flag&os.O_CREATE == 0:
			return &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
		case f == nil:
			f = &memFile{}
			d.files[name] = f
		case flag&os.O_EXCL != 0:
			return &fs.PathError{Op: "open", Path: name, Err: syscall.EEXIST}
		}
		file = &memHandle{m, name, f}
		return nil
	})
	return file, err
}

func (m *memMount) Rename(from, to string) error {
	return m.do("open", to, func(d *memDisk) error {
		f := d.files[from]
		if f == nil {
			return &fs.PathError{Op: "rename", Path: from, Err: syscall.ENOENT}
		}
		if old := d.files[to]; old != nil {
			old.unlinked = true
		}
		delete(d.files, from)
		d.files[to] = f
		return nil
	})
}

func (m *memMount) Remove(name string) error {
	return m.do("remove", name, func(d *memDisk) error {
		f := d.files[name]
		if f == nil {
			return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOENT}
		}
		f.unlinked = true
		delete(d.files, name)
		return nil
	})
}

func (m *memMount) ReadDir(dir string) (names []string, err error) {
	err = m.do("look", dir, func(d *memDisk) error {
		for name := range d.files {
			if filepath.Dir(name) == dir {
				names = append(names, filepath.Base(name))
			}
		}
		return nil
	})
	return names, err
}

func (m *memMount) SyncDir(dir string) error {
	return m.do("sync", dir, func(d *memDisk) error {
		maps.DeleteFunc(d.safe, func(name string, _ *memFile) bool { return filepath.Dir(name) == dir })
		for name, f := range d.files {
			if filepath.Dir(name) == dir {
				d.safe[name] = f
			}
		}
		return nil
	})
}

func (m *memMount) Free(dir string) (free int64, err error) {
	err = m.do("look", dir, func(d *memDisk) error {
		if free = 1 << 40; d.faults.low {
			free = 0
		}
		return nil
	})
	return free, err
}

// A memHandle is an open file.
type memHandle struct {
	mount *memMount
	name  string
	file  *memFile
}

func (h *memHandle) do(op string, fn func(f *memFile) error) error {
	return h.mount.do(op, h.name, func(*memDisk) error { return fn(h.file) })
}

func (h *memHandle) ReadAt(p []byte, off int64) (n int, err error) {
	err = h.do("read", func(f *memFile) error {
		if n = copy(p, f.data[min(off, int64(len(f.data))):]); n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (h *memHandle) WriteAt(p []byte, off int64) (n int, err error) {
	err = h.do("write", func(f *memFile) error {
		if end := int(off) + len(p); end > len(f.data) {
			f.data = append(f.data, make([]byte, end-len(f.data))...)
		}
		n, f.dirty = copy(f.data[off:], p), min(f.dirty, int(off))
		return nil
	})
	return n, err
}

func (h *memHandle) Truncate(size int64) error {
	return h.do("write", func(f *memFile) error {
		f.data, f.dirty = f.data[:min(int(size), len(f.data))], min(f.dirty, int(size))
		return nil
	})
}

// Sync of a segment may take its time, and answers late then. All others are made with locks of the spool held: for them time does not pass, since
// in a bubble it cannot while somebody waits for a lock.
func (h *memHandle) Sync() error {
	var slow time.Duration
	err := h.do("sync", func(f *memFile) error {
		if !f.spoilt {
			f.safe = append(f.safe[:min(f.dirty, len(f.safe))], f.data[f.dirty:]...)
			f.dirty = len(f.data)
		}
		return nil
	})
	h.mount.disk.mu.Lock()
	slow = h.mount.disk.faults.slow
	h.file.spoilt = h.file.spoilt || err != nil
	h.mount.disk.mu.Unlock()
	if slow > 0 && strings.HasSuffix(h.name, ".seg") {
		time.Sleep(slow)
	}
	return err
}

func (h *memHandle) Size() (size int64, err error) {
	err = h.do("look", func(f *memFile) error { size = int64(len(f.data)); return nil })
	return size, err
}

func (h *memHandle) Linked() (linked bool, err error) {
	err = h.do("look", func(f *memFile) error { linked = !f.unlinked; return nil })
	return linked, err
}

func (h *memHandle) Close() error { return nil }
