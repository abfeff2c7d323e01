package demo

import (
	"fmt"
	"testing"
	"time"
)

func TestTally(t *testing.T) {
	type arrival struct {
		subject string
		seq     int
	}
	tests := []struct {
		name     string
		strict   bool
		arrivals []arrival
		want     sums
	}{
		{"in order", true, []arrival{{"a", 1}, {"b", 2}, {"a", 3}}, sums{distinct: 3}},
		{"gap", true, []arrival{{"a", 1}, {"a", 3}}, sums{distinct: 2}},
		{"duplicates", true, []arrival{{"a", 1}, {"a", 2}, {"a", 1}, {"a", 2}, {"a", 3}}, sums{distinct: 3, duplicates: 2}},
		{"subjects overtake", false, []arrival{{"b", 2}, {"a", 1}, {"a", 3}}, sums{distinct: 3}},
		{"subjects overtake, strict", true, []arrival{{"b", 2}, {"a", 1}, {"a", 3}}, sums{distinct: 3, disordered: 1}},
		{"overtaken in its subject", false, []arrival{{"a", 3}, {"a", 1}, {"a", 2}}, sums{distinct: 3, disordered: 2}},
		{"nobody's", false, []arrival{{"a", 0}, {"a", -1}}, sums{foreign: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			began := time.Now()
			tally := newTally(tt.strict, began)
			for _, a := range tt.arrivals {
				tally.add(a.subject, fmt.Appendf(nil, `{"seq":%d,"sent":%d}`, a.seq, time.Since(began)))
			}
			got := tally.sum()
			got.longest = 0
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestTallyLongestDelay(t *testing.T) {
	tally := newTally(false, time.Now().Add(-time.Minute))
	tally.add("a", fmt.Appendf(nil, `{"seq":1,"sent":%d}`, 50*time.Second))
	tally.add("a", fmt.Appendf(nil, `{"seq":2,"sent":%d}`, 59*time.Second))
	tally.add("a", fmt.Appendf(nil, `{"seq":1,"sent":%d}`, 0)) // a duplicate's delay is nobody's
	if got := tally.sum().longest; got < 10*time.Second || got > 20*time.Second {
		t.Errorf("longest delay %v", got)
	}
}

func TestTallyRecovery(t *testing.T) {
	tally := newTally(false, time.Now())
	add := func(seqs ...int) {
		for _, seq := range seqs {
			tally.add("a", fmt.Appendf(nil, `{"seq":%d}`, seq))
		}
	}
	add(1, 2, 3)
	tally.back(5)
	add(3, 4, 6)
	if got := tally.sum().recovery; got.backlog != 2 || got.missing != 1 || got.first == 0 || got.caughtUp != 0 {
		t.Errorf("in the middle: %+v", got)
	}
	add(5, 7)
	if got := tally.sum().recovery; got.missing != 0 || got.caughtUp < got.first {
		t.Errorf("at the end: %+v", got)
	}
}
