package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// deadBox is a store of dead letters that the test can break.
type deadBox struct {
	mu      sync.Mutex
	fail    error // what Store says, if anything
	hang    bool  // Store stores, and then never answers: as if the process died there
	calls   int
	letters []*DeadLetter
	closed  bool
}

func (b *deadBox) Store(ctx context.Context, letters []*DeadLetter) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if b.fail != nil {
		return 0, b.fail
	}
	b.letters = append(b.letters, letters...)
	if b.hang {
		b.mu.Unlock()
		<-ctx.Done()
		b.mu.Lock()
		return 0, ctx.Err()
	}
	return 0, nil
}

func (b *deadBox) Close(context.Context) error { b.closed = true; return nil }

func (b *deadBox) set(fail error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = fail
}

// dead returns the payloads of the letters, in the order in which they were stored.
func (b *deadBox) dead() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, l := range b.letters {
		all = append(all, string(l.Message.Data))
	}
	return all
}

// refusing answers 422 to the messages with these payloads, and takes the others.
func refusing(poison ...string) func([]*Message, []Outcome) error {
	return func(batch []*Message, out []Outcome) error {
		for i, m := range batch {
			out[i].Status = Delivered
			for _, p := range poison {
				if string(m.Data) == p {
					out[i] = Outcome{Status: Refused, Err: errors.New("status 422"), Code: 422}
				}
			}
		}
		return nil
	}
}

func deadOptions(t *testing.T, box *deadBox) RouteOptions {
	o := testOptions(t)
	o.DeadLetters = box
	o.Delivery.Ordering = OrderStrict
	return o
}

// A refused message becomes a dead letter with its reason, and holds up nobody.
func TestDeadLetterOfARefusedMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &deadBox{}
		sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 8}, answer: refusing("000042", "000043")}
		route, accept, stop := start(t, deadOptions(t, box), sink)
		publish(t, accept, 100, 3)
		stop()
		s := route.Stats()
		if s.Delivered != 98 || s.DeadLetters[DeadRefused] != 2 || s.DroppedTotal() != 0 || s.MemoryMessages != 0 || !box.closed {
			t.Errorf("stats %+v, closed %t; want 98 delivered and two dead letters", s, box.closed)
		}
		if diff := cmp.Diff([]string{"000042", "000043"}, box.dead()); diff != "" {
			t.Fatalf("dead letters (-want +got):\n%s", diff)
		}
		l := box.letters[0]
		if l.Reason != DeadRefused || l.Code != 422 || l.Attempts != 1 || l.Route != "orders" || l.Err == nil || l.Time.IsZero() {
			t.Errorf("letter %+v", l)
		}
		checkArrivals(t, sink.arrived, 98, OrderStrict)
	})
}

// While the store is away, the message stays in the route, its lane waits, the route says so, and what comes meanwhile is kept. Once it is
// back, everything is where it belongs: nothing lost, nothing twice, the order kept.
func TestDeadLetterStoreAway(t *testing.T) {
	for name, fault := range map[string]struct {
		err   error
		state State
	}{
		"down":    {errDown, StateSpilling},
		"blocked": {&Fault{Err: errDown, Blocked: true}, StateBlocked},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := &deadBox{fail: fault.err}
				o := deadOptions(t, box)
				o.Buffer.Disk = 1 << 30
				sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 8}, answer: refusing("000042")}
				route, accept, stop := start(t, o, sink)
				publish(t, accept, 1000, 3)
				time.Sleep(time.Hour)
				s := route.Stats()
				const withIt = 42 + 9 // those before it, and those that were offered with it
				if s.State != fault.state || s.Delivered > withIt || s.DiskMessages+int(s.Delivered) != 1000 || s.DeadLettersTotal()+s.DroppedTotal() != 0 {
					t.Errorf("while the store is away: %+v", s)
				}
				if pauses := int(time.Hour / o.Delivery.RetryMax); box.calls < pauses || box.calls > 4*pauses {
					t.Errorf("the store was tried %d times in an hour, with pauses of up to %v", box.calls, o.Delivery.RetryMax)
				}
				box.set(nil)
				time.Sleep(time.Minute)
				stop()
				checkArrivals(t, sink.arrived, 999, OrderStrict)
				if got := box.dead(); len(got) != 1 || got[0] != "000042" {
					t.Errorf("dead letters %q", got)
				}
			})
		})
	}
}

// The route stops while the store is away, or dies after the letter is stored and before the message is settled: after the restart the message
// is refused again and becomes a dead letter, for the second time at most.
func TestDeadLetterOverARestart(t *testing.T) {
	for name, box := range map[string]*deadBox{"store away": {fail: errDown}, "killed before it is settled": {hang: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := deadOptions(t, box)
				o.Buffer.Disk, o.Buffer.Persist = 1<<30, PersistAlways
				sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, answer: refusing("000001")}
				_, accept, stop := start(t, o, sink)
				publish(t, accept, 5, 1)
				time.Sleep(time.Minute)
				stop()
				if len(sink.arrived) != 1 {
					t.Errorf("arrived before the restart: %q", sink.arrived)
				}

				stored := len(box.letters)
				box.fail, box.hang = nil, false
				_, _, stop = start(t, o, sink)
				time.Sleep(time.Minute)
				stop()
				checkArrivals(t, sink.arrived, 4, OrderStrict)
				if len(box.letters) != stored+1 || box.letters[stored].Message.ID != "1" {
					t.Errorf("%d letters before the restart, then %q; want the refused message once more", stored, box.dead())
				}
			})
		})
	}
}

// A stop does not cut off what is under way to a sink that works, because the store of the dead letters is away: it would come twice.
func TestDeadLetterStoreAwayOnAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := deadOptions(t, &deadBox{fail: errDown})
		o.Delivery.Ordering, o.Buffer.Disk = OrderNone, 1<<30
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 2}, latency: time.Second, answer: refusing("000000")}
		var offered atomic.Int64
		_, accept, stop := start(t, o, &hookSink{sink, func(*Message) { offered.Add(1) }})
		publish(t, accept, 10, 1)
		time.Sleep(3500 * time.Millisecond)
		began := time.Now()
		stop()
		if n := int(offered.Load()); n != 5 || len(sink.arrived) != n-1 {
			t.Errorf("%d messages were offered, %d arrived; want all but the refused one", n, len(sink.arrived))
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
	})
}

// A message has as many attempts as the limit says, and those at a blocked endpoint do not count.
func TestMaxAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, blockedFor = 3, 10
		box := &deadBox{}
		o := deadOptions(t, box)
		o.Delivery.MaxAttempts = most
		offered := map[string]int{}
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, answer: func(batch []*Message, out []Outcome) error {
			data := string(batch[0].Data)
			switch offered[data]++; {
			case data == "000001" && offered[data] <= blockedFor:
				return &Fault{Err: errors.New("status 401"), Blocked: true, Code: 401}
			case data == "000001", data == "000002" && offered[data] >= most:
				return deliverAll(batch, out)
			case data == "000003" || data == "000002":
				return &Fault{Err: errors.New("status 503"), Code: 503}
			}
			return deliverAll(batch, out)
		}}
		route, accept, stop := start(t, o, sink)
		publish(t, accept, 6, 1)
		time.Sleep(time.Minute)
		stop()
		s := route.Stats()
		if s.Delivered != 5 || s.DeadLetters[DeadMaxAttempts] != 1 || offered["000001"] != blockedFor+1 || offered["000003"] != most {
			t.Errorf("stats %+v, offered %v", s, offered)
		}
		if l := box.letters[0]; string(l.Message.Data) != "000003" || l.Attempts != most || l.Code != 503 || l.Err.Error() != "status 503" {
			t.Errorf("letter %+v", l)
		}
		checkArrivals(t, sink.arrived, 5, OrderStrict)
	})
}

// Without a store, what is given up is dropped, and counted by its reason.
func TestMaxAttemptsWithoutAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Delivery.MaxAttempts = 2
		sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 2}, answer: func([]*Message, []Outcome) error { return errDown }}
		route, accept, stop := start(t, o, sink)
		publish(t, accept, 50, 4)
		time.Sleep(time.Hour)
		stop()
		if s := route.Stats(); s.Dropped[DropMaxAttempts] != 50 || s.DeadLettersTotal() != 0 || s.MemoryMessages != 0 {
			t.Errorf("stats %+v; want 50 dropped", s)
		}
	})
}

// What is too old becomes a dead letter, if the route wants that, be it in memory or on disk.
func TestDeadLettersOfOldMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &deadBox{}
		o := deadOptions(t, box)
		o.Buffer.MaxAge, o.Buffer.KeepExpired, o.Buffer.Disk = time.Minute, true, 1<<30
		sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 2}}
		down := true
		sink.answer = func(batch []*Message, out []Outcome) error {
			if down {
				return errDown
			}
			return deliverAll(batch, out)
		}
		route, accept, stop := start(t, o, sink)
		publish(t, accept, 100, 4)
		time.Sleep(2 * time.Minute)
		publish(t, accept, 50, 4)
		sink.mu.Lock()
		down = false
		sink.mu.Unlock()
		time.Sleep(10 * time.Second)
		stop()
		s := route.Stats()
		if s.Delivered != 50 || s.DeadLetters[DeadMaxAge] != 100 || s.DroppedTotal() != 0 || len(box.letters) != 100 {
			t.Errorf("stats %+v; want 50 delivered, 100 dead letters", s)
		}
	})
}

// A message that has its verdict when it comes goes to the dead letters without being offered, in memory and by way of the disk.
func TestCondemnedMessage(t *testing.T) {
	for _, persist := range []Persist{PersistOutage, PersistAlways} {
		synctest.Test(t, func(t *testing.T) {
			box := &deadBox{fail: errDown}
			o := deadOptions(t, box)
			o.Buffer.Disk, o.Buffer.Persist = 1<<30, persist
			sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 1}, answer: deliverAll}
			_, accept, stop := start(t, o, sink)
			bad := &Message{Subject: "s", ID: "bad", Data: []byte("bad"), Time: time.Now()}
			bad.condemn(DeadFilter, errors.New("no such field"))
			if err := accept(bad); err != nil {
				t.Fatal(err)
			}
			publish(t, accept, 10, 1)
			time.Sleep(time.Minute)
			stop()
			box.set(nil)
			_, _, stop = start(t, o, sink)
			time.Sleep(time.Minute)
			stop()
			checkArrivals(t, sink.arrived, 10, OrderStrict)
			if len(box.letters) != 1 {
				t.Fatalf("dead letters %q", box.dead())
			}
			if l := box.letters[0]; l.Reason != DeadFilter || l.Err.Error() != "no such field" || l.Attempts != 0 || l.Message.ID != "bad" {
				t.Errorf("letter %+v", l)
			}
		})
	}
}

// Revive undoes Header, for a message that has been a dead letter before too.
func TestDeadLetterRevive(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for name, header := range map[string]Header{
		"none":      nil,
		"its own":   {"A": {"1", "2"}},
		"been dead": {HeaderDeadReason: {"refused"}, HeaderDeadError: {"x"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &Message{Subject: "a.b", ID: "7", Header: header, Data: []byte("x"), Time: at}
			letter := DeadLetter{Message: m, Reason: DeadMaxAttempts, Err: fmt.Errorf("status 503:\r\n%s", strings.Repeat("é", 1000)), Attempts: 9, Route: "orders", Time: at}
			s, err := DecodeRecord(letter.Stored().EncodeRecord())
			if err != nil {
				t.Fatal(err)
			}
			said := s.Header.Get(HeaderDeadError)
			if s.Header.Get(HeaderDeadReason) != "max_attempts" || s.Header.Get(HeaderDeadStatus) != "0" || s.Header.Get(HeaderDeadAttempts) != "9" ||
				s.Header.Get(HeaderDeadRoute) != "orders" || s.Header.Get(HeaderDeadTime) != "2026-11-01T12:00:00Z" ||
				!strings.HasPrefix(said, "status 503: éé") || !strings.HasSuffix(said, "é…") || len(said) > 510 {
				t.Errorf("headers %q", s.Header)
			}
			s.Revive()
			if diff := cmp.Diff(*m, s.Message, compareMessages); diff != "" {
				t.Errorf("revived (-want +got):\n%s", diff)
			}
		})
	}
}

// A verdict survives the disk, and the way out and in again as a line of JSON.
func TestVerdictIsKept(t *testing.T) {
	s := &Stored{Message: Message{Subject: "a", ID: "1", Data: []byte("1"), Time: time.Unix(1, 0)}}
	s.condemn(DeadFilter, errors.New("no such field"))
	line, err := s.AppendJSONLine(nil)
	if err != nil {
		t.Fatal(err)
	}
	fromLine, err := ParseJSONLine(line)
	if err != nil {
		t.Fatal(err)
	}
	fromDisk, err := DecodeRecord(fromLine.EncodeRecord())
	if err != nil {
		t.Fatal(err)
	}
	if v := fromDisk.verdict; v == nil || v.reason != DeadFilter || v.Error() != "no such field" {
		t.Errorf("verdict %v", v)
	}
}
