package sources

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/natsrelay/natsrelay/relay"
)

func TestParsePlace(t *testing.T) {
	for reply, want := range map[string]place{
		"$JS.ACK.S.d.1.12.34.1700000000000000001.56":            {sequence: 12, delivery: 34, time: 1700000000000000001, pending: 56},
		"$JS.ACK._.acc.S.d.2.12.34.1700000000000000001.56":      {sequence: 12, delivery: 34, time: 1700000000000000001, pending: 56},
		"$JS.ACK.hub.acc.S.d.2.12.34.1700000000000000001.56.xy": {domain: "hub", sequence: 12, delivery: 34, time: 1700000000000000001, pending: 56},
	} {
		if got, ok := parsePlace(reply); !ok || got != want {
			t.Errorf("%s: %+v, %v", reply, got, ok)
		}
	}
	for _, reply := range []string{"", "_INBOX.x", "$JS.ACK.", "$JS.ACK.S.d.1.12.34.17", "$JS.ACK.S.d.1.12.34.17.x", "$JS.ACK.S.d.1.12.34.17.56.7", "$JS.FC.S.d.1.12.34.17.56"} {
		if got, ok := parsePlace(reply); ok {
			t.Errorf("%q is taken for %+v", reply, got)
		}
	}
}

func TestRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, model := runs{most: 1000}, map[uint64]bool{}
		for _, n := range rapid.SliceOf(rapid.Uint64Range(1, 60)).Draw(t, "sequences") {
			r.add(n)
			model[n] = true
		}
		for n := uint64(0); n < 62; n++ {
			if r.has(n) != model[n] {
				t.Fatalf("%d: %v in %v", n, r.has(n), r.all)
			}
		}
		for i := 1; i < len(r.all); i++ {
			if r.all[i].from <= r.all[i-1].to+1 {
				t.Fatalf("runs touch: %v", r.all)
			}
		}
	})
}

func TestRunsAreBounded(t *testing.T) {
	r := runs{most: 100}
	for n := uint64(2); n < 10_000; n += 2 {
		if r.add(n); len(r.all) > 100 || !r.has(n) {
			t.Fatalf("%d runs at %d", len(r.all), n)
		}
	}
}

// The window doubles while it is settled fast, narrows when it is not, and opens again.
func TestWindow(t *testing.T) {
	now := time.Now()
	w := newWindow(4096, 30*time.Second, now)
	for range firstWindow {
		w.settle()
	}
	if w.limit != 2048 {
		t.Errorf("%d after a fast window", w.limit)
	}
	for range 100_000 {
		w.settle()
	}
	if w.limit != 4096 {
		t.Errorf("%d, want the most there is", w.limit)
	}
	w.restart(now)
	w.settled = 300
	w.tick(now.Add(9*time.Second), 4096)
	if w.limit != 4096 {
		t.Errorf("%d before a third of ack_wait", w.limit)
	}
	w.tick(now.Add(11*time.Second), 4096)
	if w.limit != 300 {
		t.Errorf("%d, want what was settled in a third of ack_wait", w.limit)
	}
	w.tick(now.Add(22*time.Second), 300)
	if w.limit != narrowWindow {
		t.Errorf("%d in an outage", w.limit)
	}
	w.restart(time.Now())
	for range narrowWindow {
		w.settle()
	}
	if w.limit != 2*narrowWindow {
		t.Errorf("%d after the outage", w.limit)
	}
}

func deliver(l *ledger, sequences ...uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range sequences {
		l.take(&relay.Message{Sequence: n}, 1, fmt.Sprint(n))
	}
}

// drain returns the sequences of what the route would get now.
func drain(l *ledger) (sequences []uint64, held map[uint64]relay.Receipt) {
	l.mu.Lock()
	ready := len(l.queue) > 0 && l.mayPass(l.queue[0])
	l.mu.Unlock()
	if !ready {
		return nil, nil
	}
	held = map[uint64]relay.Receipt{}
	for _, m := range l.next(context.Background(), nil) {
		sequences = append(sequences, m.Sequence)
		held[m.Sequence] = m.Receipt
	}
	return sequences, held
}

// written returns what the consumer is told.
func written(l *ledger) (all []string) {
	for _, a := range l.takeAcks(nil) {
		all = append(all, a.reply+string(a.word))
	}
	return all
}

func expect(t *testing.T, what string, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got)\n%s", what, diff)
	}
}

// With acknowledgements for runs, only what is done together with all before it is acknowledged, once for all that is not yet written.
func TestLedgerAcknowledgesRuns(t *testing.T) {
	l := newLedger(true, 100, time.Minute)
	deliver(l, 1, 2, 3, 5)
	_, held := drain(l)
	held[2].Settle(relay.FateDone)
	expect(t, "2 alone", nil, written(l))
	held[1].Settle(relay.FateDone)
	held[3].Settle(relay.FateDone)
	expect(t, "up to 3", []string{"3+ACK"}, written(l))
	held[5].Settle(relay.FateReturned)
	deliver(l, 6)
	_, more := drain(l)
	more[6].Settle(relay.FateDone)
	expect(t, "6, with 5 given back", []string{"5-NAK"}, written(l))
	deliver(l, 5)
	again, held := drain(l)
	if !slices.Equal(again, []uint64{5}) {
		t.Errorf("5 was given back and has come again, and the route gets %d", again)
	}
	held[5].Settle(relay.FateDone)
	expect(t, "up to 6", []string{"6+ACK"}, written(l))
}

// A redelivery of what is held is not passed on, and one of what is settled is acknowledged again, at its new reply subject.
func TestLedgerKnowsRedeliveries(t *testing.T) {
	l := newLedger(false, 100, time.Minute)
	deliver(l, 1, 2, 3)
	_, held := drain(l)
	held[2].Settle(relay.FateDone)
	expect(t, "2", []string{"2+ACK"}, written(l))
	l.mu.Lock()
	for n := uint64(1); n <= 3; n++ {
		l.take(&relay.Message{Sequence: n}, 1, fmt.Sprint(n, "again"))
	}
	l.mu.Unlock()
	if got, _ := drain(l); got != nil {
		t.Errorf("the route gets %d again", got)
	}
	expect(t, "2 again", []string{"2again+ACK"}, written(l))
	held[1].Settle(relay.FateDone)
	held[1].Settle(relay.FateDone) // once is enough
	deliver(l, 1)
	expect(t, "1, and again when it is forgotten", []string{"1again+ACK", "1+ACK"}, written(l))
}

// What a consumer or a stream that is gone has delivered is not acknowledged to its successor, unless that has delivered it, too.
func TestLedgerAfterTheConsumerOrStreamIsGone(t *testing.T) {
	l := newLedger(false, 100, time.Minute)
	deliver(l, 1, 2)
	_, held := drain(l)
	l.newConsumer()
	held[1].Settle(relay.FateDone)
	expect(t, "1 of the old consumer", nil, written(l))
	deliver(l, 1, 2)
	held[2].Settle(relay.FateDone)
	expect(t, "both, of the new one", []string{"1+ACK", "2+ACK"}, written(l))

	deliver(l, 3)
	_, old := drain(l)
	deliver(l, 4)
	l.mu.Lock()
	l.newStream(0)
	l.mu.Unlock()
	deliver(l, 1, 3, 2)
	got, _ := drain(l)
	if !slices.Equal(got, []uint64{4, 1, 2, 3}) {
		t.Errorf("the route gets %d, want 4 of the old stream and all of the new one", got)
	}
	old[3].Settle(relay.FateDone)
	expect(t, "3 of the old stream", nil, written(l))
}

// What is recalled is passed on in the order of the stream, whatever order it comes in, and as soon as nothing before it is missing.
func TestLedgerAwaitsWhatIsRecalled(t *testing.T) {
	type step struct {
		comes  uint64
		passed []uint64
	}
	for name, tc := range map[string]struct {
		awaited awaited
		steps   []step
	}{
		"all that is asked for": {
			awaited{left: 4, again: []uint64{2, 3, 4, 5}, last: 5},
			[]step{{5, nil}, {2, []uint64{2}}, {4, nil}, {3, []uint64{3, 4, 5}}, {6, []uint64{6}}},
		},
		"some were not pending": {
			awaited{left: 2, again: []uint64{2, 3, 4, 5}, last: 5},
			[]step{{5, nil}, {3, []uint64{3, 5}}, {6, []uint64{6}}},
		},
		"fewer than it seemed": { // what is new comes last
			awaited{left: 3, again: []uint64{2, 3, 4, 5}, last: 5},
			[]step{{5, nil}, {3, nil}, {7, []uint64{3, 5, 7}}, {8, []uint64{8}}},
		},
		"which is not known": {
			awaited{left: 3, last: 5},
			[]step{{5, nil}, {2, nil}, {4, []uint64{2, 4, 5}}},
		},
		"the consumer has gone back": {
			awaited{last: 2, until: 6},
			[]step{{2, []uint64{2}}, {6, []uint64{6}}},
		},
		"and has to deliver again, too": {
			awaited{left: 1, again: []uint64{2}, last: 3, until: 6},
			[]step{{4, []uint64{4}}, {5, []uint64{5}}, {7, []uint64{7}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(false, 100, time.Minute)
			deliver(l, 1)
			drain(l)
			l.await(tc.awaited)
			for _, s := range tc.steps {
				deliver(l, s.comes)
				if got, _ := drain(l); !slices.Equal(got, s.passed) {
					t.Fatalf("when %d has come, the route gets %d, want %d", s.comes, got, s.passed)
				}
			}
		})
	}
}

// What waits behind what a crashed server has forgotten to have delivered is passed on after that.
func TestLedgerAwaitsWhatTheServerHasForgotten(t *testing.T) {
	l := newLedger(false, 100, time.Minute)
	deliver(l, 1, 2)
	drain(l)
	l.await(awaited{left: 1, again: []uint64{3}, last: 5})
	deliver(l, 4, 5) // 3 was lost on its way
	l.newConsumer()
	l.await(awaited{last: 2, until: 5})
	if got, _ := drain(l); got != nil {
		t.Errorf("the route gets %d before 3", got)
	}
	deliver(l, 3)
	if got, _ := drain(l); !slices.Equal(got, []uint64{3}) {
		t.Errorf("the route gets %d, want 3", got)
	}
	deliver(l, 4, 5)
	if got, _ := drain(l); !slices.Equal(got, []uint64{4, 5}) {
		t.Errorf("the route gets %d, want 4 and 5", got)
	}
}

// A message that comes behind later ones is marked, so that nobody takes it for one that went before them.
func TestLedgerMarksWhatComesLate(t *testing.T) {
	l := newLedger(false, 100, time.Minute)
	late := func(sequences ...uint64) (all []uint64) {
		deliver(l, sequences...)
		for _, m := range l.next(context.Background(), nil) {
			if m.Late {
				all = append(all, m.Sequence)
			}
		}
		return all
	}
	if got := late(1, 2, 5); got != nil {
		t.Errorf("%d are in order", got)
	}
	if got := late(3, 6, 4); !slices.Equal(got, []uint64{3, 4}) {
		t.Errorf("%d are late, want 3 and 4", got)
	}
	l.doubt(8)
	if got := late(7, 9); !slices.Equal(got, []uint64{7}) {
		t.Errorf("%d are late, want 7", got)
	}
}

// What was given back, and another relay has delivered, does not keep what comes later from being acknowledged.
func TestLedgerForgetsWhatItGaveBack(t *testing.T) {
	for _, ackAll := range []bool{true, false} {
		l := newLedger(ackAll, 100, time.Minute)
		deliver(l, 1, 2)
		_, first := drain(l)
		deliver(l, 3, 4)
		l.giveBackWaiting()
		first[1].Settle(relay.FateDone)
		first[2].Settle(relay.FateDone)
		deliver(l, 5)
		_, second := drain(l)
		second[5].Settle(relay.FateDone)
		want := map[bool][]string{true: {"3-NAK", "4-NAK", "5+ACK"}, false: {"3-NAK", "4-NAK", "1+ACK", "2+ACK", "5+ACK"}}
		expect(t, fmt.Sprint("with ackAll ", ackAll), want[ackAll], written(l))
		if len(l.entries) > 0 {
			t.Errorf("%d entries are left", len(l.entries))
		}
	}
}

// One message that takes long does not make the ledger grow, and what was settled meanwhile is still known.
func TestLedgerIsBounded(t *testing.T) {
	l := newLedger(false, 100, time.Minute)
	deliver(l, 1)
	for n := uint64(2); n < 20_000; n++ {
		deliver(l, n)
		l.mu.Lock()
		m := l.queue[len(l.queue)-1]
		l.queue = l.queue[:0]
		l.mu.Unlock()
		m.Receipt.Settle(relay.FateDone)
	}
	if len(l.entries) > 2*firstWindow {
		t.Errorf("%d entries", len(l.entries))
	}
	written(l)
	deliver(l, 2, 10_000, 19_999)
	if got, _ := drain(l); got != nil {
		t.Errorf("delivered again: %d", got)
	}
}

// Only what has been held for more than a third of ack_wait is extended, and not what is settled.
func TestLedgerExtends(t *testing.T) {
	l := newLedger(false, 100, time.Minute)
	deliver(l, 1, 2)
	_, held := drain(l)
	held[1].Settle(relay.FateDone)
	now := time.Now()
	for tick := 1; tick <= 7; tick++ {
		if got, want := len(l.extend(now)), map[bool]int{true: 1}[tick%3 == 0]; got != want {
			t.Errorf("tick %d: %d extended, want %d", tick, got, want)
		}
	}
}
