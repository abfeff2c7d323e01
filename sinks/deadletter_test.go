package sinks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
)

func letter(id string, size int) *relay.DeadLetter {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	return &relay.DeadLetter{
		Message: &relay.Message{Subject: "orders.eu.1", ID: id, Data: make([]byte, size), Time: at, Header: relay.Header{"K": {"v"}}},
		Reason:  relay.DeadRefused, Err: errors.New("status 422\nno such \x00thing"), Code: 422, Attempts: 3, Route: "orders", Time: at.Add(time.Hour),
	}
}

// wantDeadHeaders are those of letter.
func wantDeadHeaders() relay.Header {
	return relay.Header{
		"K": {"v"}, relay.HeaderDeadReason: {"refused"}, relay.HeaderDeadStatus: {"422"}, relay.HeaderDeadAttempts: {"3"}, relay.HeaderDeadRoute: {"orders"},
		relay.HeaderDeadTime: {"2026-11-01T13:00:00Z"}, relay.HeaderDeadError: {"status 422 no such thing"},
	}
}

func storedLetters(t *testing.T, dir string) (all []*relay.Stored) {
	t.Helper()
	err := spool.Walk(t.Context(), dir, 0, func(rec spool.Record) error {
		s, err := relay.DecodeRecord(rec)
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What Store has taken is on disk at once, with its headers, while the store goes on, and whichever lane it came from.
func TestDeadLetterDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dead", "orders")
	s := NewDeadLetterDisk(dir, 16<<20, 0, zerolog.Nop())
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("close without a letter: %v", err)
	}
	const lanes, each = 8, 20
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			for i := range each {
				if n, err := s.Store(t.Context(), []*relay.DeadLetter{letter(fmt.Sprint(lane, i, "a"), 10), letter(fmt.Sprint(lane, i, "b"), 10)}); n != 0 || err != nil {
					t.Errorf("displaced %d, error %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	got := storedLetters(t, dir) // not closed: as after a kill
	ids := map[string]bool{}
	for _, l := range got {
		ids[l.ID] = true
	}
	if len(got) != 2*lanes*each || len(ids) != len(got) {
		t.Errorf("%d letters of %d messages, want %d of each", len(got), len(ids), 2*lanes*each)
	}
	if diff := cmp.Diff(wantDeadHeaders(), got[0].Header); diff != "" || got[0].Subject != "orders.eu.1" {
		t.Errorf("subject %q, headers (-want +got):\n%s", got[0].Subject, diff)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// At its bound, the oldest letters give way; each is counted, and the newest are there.
func TestDeadLetterDiskIsBounded(t *testing.T) {
	const most, size, n = 16 << 20, 100_000, 400
	dir := t.TempDir()
	s := NewDeadLetterDisk(dir, most, 0, zerolog.Nop())
	displaced := 0
	for i := range n {
		d, err := s.Store(t.Context(), []*relay.DeadLetter{letter(fmt.Sprint(i), size)})
		if err != nil {
			t.Fatal(err)
		}
		displaced += d
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := storedLetters(t, dir)
	if len(got)+displaced != n || len(got)*size < most/2 || len(got)*size > most || got[len(got)-1].ID != fmt.Sprint(n-1) {
		t.Errorf("%d letters are left and %d gave way, of %d; the newest is %s", len(got), displaced, n, got[len(got)-1].ID)
	}
}

// A letter that can never be stored, and a disk without room, are said to be so: the message stays with the route.
func TestDeadLetterDiskRefuses(t *testing.T) {
	tooLarge := NewDeadLetterDisk(t.TempDir(), 1<<20, 0, zerolog.Nop())
	defer tooLarge.Close(t.Context())
	_, err := tooLarge.Store(t.Context(), []*relay.DeadLetter{letter("1", 2<<20)})
	if fault, ok := errors.AsType[*relay.Fault](err); !ok || !fault.Blocked || !errors.Is(err, spool.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	full := NewDeadLetterDisk(t.TempDir(), 1<<20, 1<<60, zerolog.Nop())
	defer full.Close(t.Context())
	if _, err := full.Store(t.Context(), []*relay.DeadLetter{letter("1", 10)}); !errors.Is(err, spool.ErrLowSpace) {
		t.Errorf("no room: %v", err)
	}
}

func newDeadLetterNATS(t *testing.T, cfg *config.NATS) *DeadLetterNATS {
	t.Helper()
	conn, err := natsconn.Open(cfg, natsconn.Options{Instance: "vm-17", Role: "dead", Log: natstest.NewLog(t).Logger})
	if err != nil {
		t.Fatal(err)
	}
	s := NewDeadLetterNATS(conn, config.DeadLetter{To: "nats", NATS: "edge", Subject: "dead.orders"})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(s.Close(ctx), conn.Close(ctx)); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	s.sink.wait = testPatience
	waitConnected(t, s.sink)
	return s
}

// A letter is at the server when Store returns, on its subject, with its headers and the message's id.
func TestDeadLetterNATS(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	r := subscribe(t, srv.Client(), "dead.>")
	s := newDeadLetterNATS(t, natstest.Config(srv.URL()))
	if _, err := s.Store(t.Context(), []*relay.DeadLetter{letter("7", 5), letter("8", 0)}); err != nil {
		t.Fatal(err)
	}
	got := r.all()
	if len(got) != 2 {
		t.Fatalf("%d arrived", len(got))
	}
	want := nats.Header(wantDeadHeaders())
	want[HeaderDeadSubject], want[relay.HeaderMsgID] = []string{"orders.eu.1"}, []string{"7"}
	if diff := cmp.Diff(want, got[0].Header); diff != "" || got[0].Subject != "dead.orders" || len(got[0].Data) != 5 {
		t.Errorf("subject %q, %d bytes, headers (-want +got):\n%s", got[0].Subject, len(got[0].Data), diff)
	}
}

// A stream keeps every letter, whatever its message told the stream that it came from, or was meant for: nobody would hear that it is refused.
func TestDeadLetterNATSInAStream(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	js, err := jetstream.New(srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "DEAD", Subjects: []string{"dead.>"}, AllowRollup: true})
	if err != nil {
		t.Fatal(err)
	}
	s := newDeadLetterNATS(t, natstest.Config(srv.URL()))
	commands := relay.Header{
		"Nats-Expected-Stream": {"ELSEWHERE"}, "Nats-Expected-Last-Sequence": {"77"}, "Nats-Rollup": {"all"}, "Nats-TTL": {"1s"},
		"Nats-Schedule": {"@every 1m"}, "Nats-Schedule-Target": {"x"}, "Nats-Incr": {"1"}, "Nats-Batch-Id": {"x"},
	}
	var letters []*relay.DeadLetter
	for key, values := range commands {
		l := letter(key, 5)
		l.Message.Header[key] = values
		letters = append(letters, l)
	}
	if _, err := s.Store(t.Context(), letters); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "all are in the stream", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Msgs == uint64(len(letters))
	})
	for i, l := range letters {
		m, err := stream.GetMsg(t.Context(), uint64(i+1))
		if err != nil || m.Header.Get(relay.HeaderMsgID) != l.Message.ID || m.Header.Get("K") != "v" {
			t.Errorf("letter %d, with %s: %v, %v", i+1, l.Message.ID, m, err)
		}
		if l.Message.Header[l.Message.ID] == nil {
			t.Errorf("the message has lost %s", l.Message.ID)
		}
	}
}

// A server that is away, will not permit it, or would never take it, is no reason to lose a letter.
func TestDeadLetterNATSFails(t *testing.T) {
	srv := natstest.Start(t, "max_payload: 1000\n"+permitting(`"other"`), nil)
	cfg := natstest.Config(srv.URL())
	cfg.User, cfg.Password = "u", "p"
	s := newDeadLetterNATS(t, cfg)
	for name, c := range map[string]struct {
		letter *relay.DeadLetter
		want   string
	}{"denied": {letter("1", 5), "not permitted"}, "too large": {letter("2", 2000), "max_payload"}} {
		_, err := s.Store(t.Context(), []*relay.DeadLetter{c.letter})
		if fault, ok := errors.AsType[*relay.Fault](err); !ok || !fault.Blocked || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want a blocked fault", name, err)
		}
	}
	srv.Stop()
	natstest.Eventually(t, "the outage is reported", func() bool {
		// One that has failed before waits for the connection, which does not come back.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Store(ctx, []*relay.DeadLetter{letter("1", 5)})
		fault, ok := errors.AsType[*relay.Fault](err)
		return ok && !fault.Blocked
	})
}

// syncFS is the operating system's file system, on which fsync, or unlinking, can be made to fail.
type syncFS struct{ broken, stuck atomic.Bool }

func (fs *syncFS) MkdirAll(dir string) error    { return os.MkdirAll(dir, 0o700) }
func (fs *syncFS) Rename(from, to string) error { return os.Rename(from, to) }
func (fs *syncFS) SyncDir(string) error         { return nil }
func (fs *syncFS) Free(string) (int64, error)   { return math.MaxInt64, nil }
func (fs *syncFS) Remove(name string) error {
	if fs.stuck.Load() {
		return syscall.EACCES
	}
	return os.Remove(name)
}

func (fs *syncFS) ReadDir(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (fs *syncFS) OpenFile(name string, flag int) (spool.File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return &syncFile{f, fs}, nil
}

type syncFile struct {
	*os.File
	fs *syncFS
}

func (f *syncFile) Linked() (bool, error) { return true, nil }

func (f *syncFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *syncFile) Sync() error {
	if f.fs.broken.Load() {
		return syscall.EIO
	}
	return nil
}

// A letter whose fsync failed is not stored: the route has kept its message. However often that happens, the letter is there once in the end.
func TestDeadLetterDiskWaitsForTheDisk(t *testing.T) {
	dir := t.TempDir()
	fs := &syncFS{}
	s := NewDeadLetterDisk(dir, 16<<20, 0, zerolog.Nop())
	s.opts.FS = fs
	defer s.Close(t.Context())
	fs.broken.Store(true)
	for range 3 {
		if _, err := s.Store(t.Context(), []*relay.DeadLetter{letter("1", 10)}); !errors.Is(err, syscall.EIO) {
			t.Errorf("fsync failed, and Store said %v", err)
		}
	}
	fs.broken.Store(false)
	if _, err := s.Store(t.Context(), []*relay.DeadLetter{letter("1", 10)}); err != nil {
		t.Error(err)
	}
	if got := storedLetters(t, dir); len(got) != 1 || got[0].ID != "1" || s.Stored() != 1 {
		t.Errorf("%d letters, of which %d are counted", len(got), s.Stored())
	}
}

// While a letter that is too large waits for somebody, those that came with it do not fill the store anew with each attempt, at the cost of older ones.
func TestDeadLetterDiskWithOneThatIsTooLarge(t *testing.T) {
	s := NewDeadLetterDisk(t.TempDir(), 16<<20, 0, zerolog.Nop())
	defer s.Close(t.Context())
	for i := range 15 {
		if n, err := s.Store(t.Context(), []*relay.DeadLetter{letter(fmt.Sprint(i), 1<<20)}); n != 0 || err != nil {
			t.Fatalf("displaced %d: %v", n, err)
		}
	}
	displaced := 0
	for range 40 {
		n, err := s.Store(t.Context(), []*relay.DeadLetter{letter("a", 1<<20), letter("b", 17<<20)})
		displaced += n
		if !errors.Is(err, spool.ErrTooLarge) {
			t.Fatal(err)
		}
	}
	if n := s.Stored(); n+displaced != 15 || displaced > 5 {
		t.Errorf("%d letters of 15, %d gave way", n, displaced)
	}
}

// A store that is full of files that are done with and cannot be unlinked has no letter to give up: it fails, until they can.
func TestDeadLetterDiskThatCannotBeEmptied(t *testing.T) {
	s := NewDeadLetterDisk(t.TempDir(), 4<<20, 0, zerolog.Nop())
	fs := &syncFS{}
	s.opts.FS = fs
	defer s.Close(t.Context())
	fill := func() (stored int, err error) {
		for range 5 {
			if _, err := s.Store(t.Context(), []*relay.DeadLetter{letter("1", 1<<20)}); err != nil {
				return stored, err
			}
			stored++
		}
		return stored, nil
	}
	if _, err := fill(); err != nil {
		t.Fatal(err)
	}
	fs.stuck.Store(true)
	all := Redrive{Progress: func(int, int) {}, Put: func(context.Context, []*relay.Stored) error { return nil }}
	if moved, err := s.Redrive(t.Context(), all); moved < 3 || err != nil {
		t.Fatalf("moved %d: %v", moved, err)
	}
	if n, err := fill(); !errors.Is(err, errNoRoom) {
		t.Errorf("stored %d: %v", n, err)
	}
	fs.stuck.Store(false)
	natstest.Eventually(t, "files are unlinked, and letters stored", func() bool {
		n, err := fill()
		return n == 5 && err == nil
	})
}

// What is refused again while letters are put back stays for the next time.
func TestRedriveEndsWithTheLettersThatWereThere(t *testing.T) {
	s := NewDeadLetterDisk(t.TempDir(), 16<<20, 0, zerolog.Nop())
	defer s.Close(t.Context())
	store := func(id string) {
		t.Helper()
		if _, err := s.Store(t.Context(), []*relay.DeadLetter{letter(id, 10)}); err != nil {
			t.Fatal(err)
		}
	}
	store("1")
	store("2")
	put := 0
	moved, err := s.Redrive(t.Context(), Redrive{Progress: func(int, int) {}, Put: func(_ context.Context, batch []*relay.Stored) error {
		for _, m := range batch {
			if put++; put > 100 {
				return errors.New("it goes on for ever")
			}
			store(m.ID)
		}
		return nil
	}})
	if err != nil || moved != 2 || s.Stored() != 2 {
		t.Errorf("moved %d, %d are stored: %v", moved, s.Stored(), err)
	}
}
