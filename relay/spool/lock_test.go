package spool

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLockDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	l, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = LockDir(dir)
	held, ok := errors.AsType[*LockedError](err)
	if !ok || held.PID != os.Getpid() || !strings.Contains(err.Error(), dir) {
		t.Fatalf("%v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = LockDir(dir); err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// To look at what is on a file system that cannot be written to, nobody must hold the lock either; and there may be none.
func TestLockToRead(t *testing.T) {
	dir := t.TempDir()
	l, err := LockToRead(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "lock")); err == nil {
		t.Error("it has written")
	}
	l.Close()
	if l, err = LockDir(dir); err != nil {
		t.Fatal(err)
	}
	_, err = LockToRead(dir)
	if held, ok := errors.AsType[*LockedError](err); !ok || held.PID != os.Getpid() {
		t.Errorf("%v", err)
	}
	l.Close()
	if l, err = LockToRead(dir); err != nil {
		t.Fatal(err)
	}
	l.Close()
}
