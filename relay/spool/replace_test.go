package spool

import (
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hookFS calls back from within two calls, with no lock held, as if other goroutines had come in between.
type hookFS struct {
	*simFS
	opening func() // before a file is opened for reading
	placed  func() // after a segment that was written anew has got its name
}

func (h *hookFS) OpenFile(name string, flag int) (File, error) {
	if flag == os.O_RDONLY && h.opening != nil {
		h.opening()
	}
	return h.simFS.OpenFile(name, flag)
}

func (h *hookFS) Rename(from, to string) error {
	err := h.simFS.Rename(from, to)
	if strings.HasSuffix(to, suffix) && h.placed != nil {
		h.placed()
	}
	return err
}

// openUnsynced opens a spool with the records 1 to 10 in one segment, as many of them durable and settled as said, whose next fsync fails.
func openUnsynced(t *testing.T, durable uint64) (*hookFS, *Spool) {
	t.Helper()
	h := &hookFS{simFS: newSimFS(crashDir)}
	s := mustOpen(t, crashDir, Options{FS: h, SyncInterval: time.Hour, OnDamage: func(d Damage) { t.Errorf("%v", d) }})
	mustAppend(t, s, recRange(1, 5)...)
	if durable > 0 {
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	mustAppend(t, s, recRange(6, 10)...)
	s.Settle(seqs(recRange(1, durable)))
	failed := false
	h.fail = func(_ int, op, name string) (int, error) {
		if op == "sync" && strings.HasSuffix(name, suffix) && !failed {
			failed = true
			return 0, syscall.EIO
		}
		return 0, nil
	}
	return h, s
}

// A reader comes to a segment of which another file has just taken the place, and the spool does not know it yet: it waits, or else it
// would take all of it for damaged.
func TestReadWhileASegmentIsReplaced(t *testing.T) {
	for _, durable := range []uint64{0, 5} {
		h, s := openUnsynced(t, durable)
		read := make(chan []Record, 1)
		h.placed = func() {
			go func() { read <- readAll(t, s, 0) }()
			time.Sleep(50 * time.Millisecond) // for it to get as far as it can
		}
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		wantRecords(t, <-read, recRange(durable+1, 10))
	}
}

// A segment is replaced, and another one begun, between a reader's choice of it and the opening of its file: none of its records is
// passed over.
func TestReadAfterASegmentWasReplaced(t *testing.T) {
	for _, durable := range []uint64{0, 5} {
		h, s := openUnsynced(t, durable)
		var once sync.Once
		h.opening = func() {
			once.Do(func() {
				if err := s.Sync(); err != nil {
					t.Error(err)
				}
				mustAppend(t, s, recRange(11, 20)...)
			})
		}
		got := readAll(t, s, 0)
		if want := recRange(durable+1, 20); !slices.EqualFunc(got, want, equal) {
			t.Errorf("read %v, want %v", seqs(got), seqs(want))
		}
	}
}

// All of a segment is settled while it is written anew: its bytes are counted off once.
func TestSettledWhileASegmentIsReplaced(t *testing.T) {
	for _, durable := range []uint64{0, 5} {
		h, s := openUnsynced(t, durable)
		h.placed = func() { s.Settle(seqs(recRange(1, 10))) }
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		if st := s.Stats(); st.FileBytes != 0 || st.Segments != 0 {
			t.Errorf("%d bytes in %d segments", st.FileBytes, st.Segments)
		}
	}
}
