package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Lock keeps a second process out of a directory. The kernel gives it back when its holder dies, however it dies.
type Lock struct{ f *os.File }

// A LockedError says who holds the lock.
type LockedError struct {
	Dir string
	PID int // 0 if the holder has not written it yet
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is in use by another process", e.Dir)
	}
	return fmt.Sprintf("%s is in use by process %d", e.Dir, e.PID)
}

// LockDir takes the lock of dir, which it makes if need be: flock(2) on dir/lock, in which it writes the pid. It does not
// wait: if another process holds the lock, or this one does already, the error is a *LockedError.
func LockDir(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := lockFile(dir, f); err != nil {
		return nil, err
	}
	// The pid is for people; a full disk must not keep the relay from starting.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &Lock{f}, nil
}

// LockToRead is LockDir for a file system that cannot be written to: to look at what is there, which only a relay that has been running for longer
// than that can hold.
func LockToRead(dir string) (*Lock, error) {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if errors.Is(err, fs.ErrNotExist) { // so nobody can hold it
		f, err = os.Open(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := lockFile(dir, f); err != nil {
		return nil, err
	}
	return &Lock{f}, nil
}

// lockFile locks the file, or closes it.
func lockFile(dir string, f *os.File) error {
	err := flock(f)
	if err == nil {
		return nil
	}
	defer f.Close()
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	b, _ := io.ReadAll(io.LimitReader(f, 32))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return &LockedError{Dir: dir, PID: pid}
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Close gives the lock back. The file stays: removing it would let two processes lock two files of one name.
func (l *Lock) Close() error { return l.f.Close() }
