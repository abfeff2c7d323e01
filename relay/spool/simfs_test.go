package spool

import (
	"bytes"
	"errors"
	"hash/maphash"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// simFS is a file system in memory that knows what is durable. It is as unkind as POSIX allows: fsync of a file does not
// make its name durable, and of what was not synced a crash keeps any part, in blocks of 512 bytes that may be torn, each in any
// state it had since the last sync, in any order of the directory's changes.
type simFS struct {
	mu    simMutex
	dirs  map[string]bool
	names map[string]*inode // as the processes see it
	safe  map[string]*inode // as the disk has it
	log   []dirOp           // what is between the two
	free  int64
	calls int
	open  int // files

	// before each call; an error is returned to the caller, and the call is not made. For a write, n > 0 lets n bytes through.
	fail      func(call int, op, name string) (n int, err error)
	badSector int64 // of every file larger than that: 4 KiB that cannot be read
	crashAt   int   // the call during which the machine dies; 0: none
	rng       *rand.Rand
}

// simMutex lets other goroutines come in between any two calls, if it has a pause.
type simMutex struct {
	sync.Mutex
	pause func()
}

func (m *simMutex) Lock() {
	if m.pause != nil {
		m.pause()
	}
	m.Mutex.Lock()
}

func (m *simMutex) Unlock() {
	m.Mutex.Unlock()
	if m.pause != nil {
		m.pause()
	}
}

var errCrash = errors.New("simulated crash")

type dirOp struct {
	op       string // create, remove, rename
	from, to string
	node     *inode
}

type inode struct {
	links int
	data  []byte  // as the processes see it
	safe  []byte  // as the disk has it
	log   []write // what is between the two
}

type write struct {
	off  int64
	data []byte // nil: truncate to off
}

func newSimFS(dir string) *simFS {
	f := &simFS{dirs: map[string]bool{}, names: map[string]*inode{}, safe: map[string]*inode{}, free: 1 << 40, rng: rand.New(rand.NewPCG(1, 1))}
	f.dirs[filepath.Dir(dir)] = true
	return f
}

// call counts, and fails or crashes if that is due.
func (f *simFS) call(op, name string) (int, error) {
	if f.crashAt > 0 && f.calls >= f.crashAt {
		return 0, errCrash
	}
	f.calls++
	if f.fail != nil {
		if n, err := f.fail(f.calls, op, name); err != nil {
			return n, &fs.PathError{Op: op, Path: name, Err: err}
		}
	}
	if f.calls == f.crashAt {
		if f.rng.IntN(2) == 0 { // the call is made, but nobody hears of it
			return -1, errCrash
		}
		return 0, errCrash
	}
	return 0, nil
}

func (f *simFS) MkdirAll(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.call("mkdir", dir); err != nil {
		return err
	}
	f.dirs[dir] = true
	return nil
}

func (f *simFS) OpenFile(name string, flag int) (File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	op := "open"
	if flag&os.O_CREATE != 0 {
		op = "create"
	}
	n, cerr := f.call(op, name)
	if cerr != nil && n == 0 {
		return nil, cerr
	}
	node := f.names[name]
	if node == nil {
		if flag&os.O_CREATE == 0 || !f.dirs[filepath.Dir(name)] {
			return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
		}
		node = &inode{links: 1}
		f.names[name] = node
		f.log = append(f.log, dirOp{"create", "", name, node})
	} else if flag&os.O_EXCL != 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EEXIST}
	}
	f.open++
	return &simFile{fs: f, node: node, name: name, writable: flag&os.O_RDWR != 0}, cerr
}

func (f *simFS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, cerr := f.call("rename", to)
	if cerr != nil && n == 0 {
		return cerr
	}
	node := f.names[from]
	if node == nil || !f.dirs[filepath.Dir(to)] {
		return &fs.PathError{Op: "rename", Path: from, Err: syscall.ENOENT}
	}
	if old := f.names[to]; old != nil {
		old.links--
	}
	delete(f.names, from)
	f.names[to] = node
	f.log = append(f.log, dirOp{"rename", from, to, node})
	return cerr
}

func (f *simFS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, cerr := f.call("remove", name)
	if cerr != nil && n == 0 {
		return cerr
	}
	node := f.names[name]
	if node == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOENT}
	}
	node.links--
	delete(f.names, name)
	f.log = append(f.log, dirOp{"remove", "", name, nil})
	return cerr
}

func (f *simFS) ReadDir(dir string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.call("readdir", dir); err != nil {
		return nil, err
	}
	if !f.dirs[dir] {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: syscall.ENOENT}
	}
	var names []string
	for name := range f.names {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (f *simFS) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, cerr := f.call("syncdir", dir)
	if cerr != nil && n == 0 {
		return cerr
	}
	if !f.dirs[dir] {
		return &fs.PathError{Op: "open", Path: dir, Err: syscall.ENOENT}
	}
	f.log = slices.DeleteFunc(f.log, func(op dirOp) bool {
		if filepath.Dir(op.to) != dir {
			return false
		}
		op.apply(f.safe)
		return true
	})
	return cerr
}

func (f *simFS) Free(dir string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.call("statfs", dir)
	return f.free, err
}

func (op dirOp) apply(names map[string]*inode) {
	switch op.op {
	case "create":
		names[op.to] = op.node
	case "remove":
		delete(names, op.to)
	case "rename":
		names[op.to] = op.node
		if names[op.from] == op.node {
			delete(names, op.from)
		}
	}
}

type simFile struct {
	fs       *simFS
	node     *inode
	name     string
	writable bool
	closed   bool
}

func (f *simFile) call(op string) (int, error) {
	if f.closed {
		return 0, os.ErrClosed
	}
	return f.fs.call(op, f.name)
}

func (f *simFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if _, err := f.call("read"); err != nil {
		return 0, err
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	if bad := f.fs.badSector; bad > 0 && off < bad+4096 && off+int64(len(b)) > bad {
		n := 0
		if off < bad {
			n = copy(b, f.node.data[off:min(bad, int64(len(f.node.data)))])
		}
		return n, &fs.PathError{Op: "read", Path: f.name, Err: syscall.EIO}
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *simFile) WriteAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n, err := f.call("write")
	if n < 0 { // crash: all of it is on its way
		n = len(b)
	}
	if err == nil {
		n = len(b)
	}
	if !f.writable {
		return 0, os.ErrPermission
	}
	if n = min(n, len(b)); n > 0 {
		w := write{off, bytes.Clone(b[:n])}
		f.node.data = w.apply(f.node.data)
		f.node.log = append(f.node.log, w)
	}
	return n, err
}

func (f *simFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n, err := f.call("truncate")
	if err != nil && n == 0 {
		return err
	}
	w := write{size, nil}
	f.node.data = w.apply(f.node.data)
	f.node.log = append(f.node.log, w)
	return err
}

func (w write) apply(b []byte) []byte {
	end := w.off + int64(len(w.data))
	if int64(len(b)) < end {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	copy(b[w.off:], w.data)
	if w.data == nil {
		b = b[:w.off]
	}
	return b
}

// Sync makes data durable. A failed one does as Linux does: what could not be written is clean from now on, so that the next
// fsync of the file succeeds and writes none of it.
func (f *simFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n, err := f.call("sync")
	if err == nil || n != 0 {
		for _, w := range f.node.log {
			f.node.safe = w.apply(f.node.safe)
		}
		f.node.log = nil
	} else if !errors.Is(err, errCrash) {
		f.node.log = nil
	}
	return err
}

func (f *simFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if _, err := f.call("stat"); err != nil {
		return 0, err
	}
	return int64(len(f.node.data)), nil
}

func (f *simFile) Linked() (bool, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if _, err := f.call("stat"); err != nil {
		return false, err
	}
	return f.node.links > 0, nil
}

func (f *simFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	f.closed = true
	f.fs.open--
	return nil
}

// killed is what a new process finds after kill -9 of the old one: everything.
func (f *simFS) killed() *simFS {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.empty()
	copies := map[*inode]*inode{}
	dup := func(n *inode) *inode {
		if copies[n] == nil {
			copies[n] = &inode{links: n.links, data: bytes.Clone(n.data), safe: bytes.Clone(n.safe), log: slices.Clone(n.log)}
		}
		return copies[n]
	}
	for name, n := range f.names {
		g.names[name] = dup(n)
	}
	for name, n := range f.safe {
		g.safe[name] = dup(n)
	}
	for _, op := range f.log {
		if op.node != nil {
			op.node = dup(op.node)
		}
		g.log = append(g.log, op)
	}
	return g
}

func (f *simFS) empty() *simFS {
	g := newSimFS("")
	for d := range f.dirs {
		g.dirs[d] = true
	}
	g.free = f.free
	return g
}

// crashed is one of the states in which a loss of power may leave the disk.
func (f *simFS) crashed(rng *rand.Rand) *simFS {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.empty()
	names := map[string]*inode{}
	for name, n := range f.safe {
		names[name] = n
	}
	style := rng.IntN(4) // all, none, a prefix, any
	prefix := rng.IntN(len(f.log) + 1)
	for i, op := range f.log {
		if style == 0 || style == 2 && i < prefix || style == 3 && rng.IntN(2) == 0 {
			op.apply(names)
		}
	}
	ordered := make([]string, 0, len(names))
	for name := range names {
		ordered = append(ordered, name)
	}
	slices.Sort(ordered)
	for _, name := range ordered {
		data := names[name].crashed(rng)
		n := &inode{links: 1, data: data, safe: bytes.Clone(data)}
		g.names[name], g.safe[name] = n, n
	}
	return g
}

// crashed keeps, of each block, the state it had after any number of the writes since the last sync; and perhaps only
// the first part of that.
func (n *inode) crashed(rng *rand.Rand) []byte {
	if len(n.log) == 0 {
		return bytes.Clone(n.safe)
	}
	versions := [][]byte{n.safe}
	for _, w := range n.log {
		versions = append(versions, w.apply(bytes.Clone(versions[len(versions)-1])))
	}
	style := rng.IntN(4)
	pick := func() []byte {
		switch style {
		case 0:
			return versions[len(versions)-1]
		case 1:
			return versions[0]
		}
		return versions[rng.IntN(len(versions))]
	}
	size := len(pick())
	if style == 3 {
		if d := len(versions[len(versions)-1]) - size; d > 0 {
			size += rng.IntN(d + 1)
		}
	}
	out := make([]byte, size)
	const block = 512
	for off := 0; off < size; off += block {
		end := min(off+block, size)
		v := pick()
		if off < len(v) {
			copy(out[off:end], v[off:])
		}
		if style >= 2 && rng.IntN(8) == 0 { // torn
			v, cut := pick(), off+rng.IntN(end-off)
			clear(out[cut:end])
			if cut < len(v) {
				copy(out[cut:end], v[cut:])
			}
		}
	}
	return out
}

var hashSeed = maphash.MakeSeed()

// hash tells disks apart by their content.
func (f *simFS) hash() uint64 {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	names := make([]string, 0, len(f.names))
	for name := range f.names {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		h.WriteString(name)
		h.Write(f.names[name].data)
		h.WriteByte(0)
	}
	return h.Sum64()
}

// removeAll is rm -rf.
func (f *simFS) removeAll(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, n := range f.names {
		if strings.HasPrefix(name, dir+"/") {
			n.links--
			delete(f.names, name)
			delete(f.safe, name)
		}
	}
	f.log = nil
	for d := range f.dirs {
		if d == dir || strings.HasPrefix(d, dir+"/") {
			delete(f.dirs, d)
		}
	}
}
