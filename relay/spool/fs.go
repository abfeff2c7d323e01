package spool

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// FS is all that the spool asks of a file system. Names are paths. Tests put one in its place that forgets what was not
// synced, tears writes, and fails at any call.
type FS interface {
	MkdirAll(dir string) error
	OpenFile(name string, flag int) (File, error) // flag as for os.OpenFile
	Rename(from, to string) error
	Remove(name string) error
	ReadDir(dir string) ([]string, error) // base names
	SyncDir(dir string) error
	Free(dir string) (int64, error) // bytes that this process may still write
}

// File is an open file. ReadAt and WriteAt are io.ReaderAt's and io.WriterAt's; all methods may be called concurrently.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
	Linked() (bool, error) // false once the file has been removed from its directory
}

// OS returns the operating system's file system.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) MkdirAll(dir string) error    { return os.MkdirAll(dir, 0o700) }
func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(name string) error     { return os.Remove(name) }

func (osFS) OpenFile(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) ReadDir(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (osFS) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (osFS) Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f osFile) Linked() (bool, error) {
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return !ok || sys.Nlink > 0, nil
}

// createFile makes a file, in place of one that a failed attempt may have left there.
func createFile(fs FS, path string) (File, error) {
	const flag = os.O_RDWR | os.O_CREATE | os.O_EXCL
	f, err := fs.OpenFile(path, flag)
	if errors.Is(err, os.ErrExist) {
		if err = fs.Remove(path); err == nil {
			f, err = fs.OpenFile(path, flag)
		}
	}
	return f, err
}

// unlinked: the file has certainly been removed.
func unlinked(f File) bool {
	linked, err := f.Linked()
	return err == nil && !linked
}

// euclean is Linux's "structure needs cleaning": the file system found itself damaged. Other systems have no such number.
const euclean = syscall.Errno(117)

// unreadable tells the errors that mean a damaged disk from those that pass (too many open files, no memory, no permission).
func unreadable(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EBADMSG) || errors.Is(err, euclean)
}

// diskFull: the disk or a quota has no room. The spool reports it as ErrLowSpace.
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
