package relay

import (
	"errors"
	"testing"
	"testing/synctest"
)

// byData judges messages by their payload.
func byData(m *Message) (Verdict, error) {
	switch string(m.Data) {
	case "filtered":
		return Filtered, nil
	case "sampled":
		return Sampled, nil
	case "error":
		return Pass, errors.New("no opinion")
	}
	m.Subject = "changed." + m.Subject
	return Pass, nil
}

// What the filter leaves out is counted, and is no loss; what it cannot judge becomes a dead letter, as it came.
func TestRouteStage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		letters := &deadBox{}
		o.Stage, o.DeadLetters = byData, letters
		sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 2}, answer: deliverAll}
		route, accept, stop := start(t, o, sink)
		for _, data := range []string{"good", "filtered", "error", "sampled", "filtered"} {
			if err := accept(&Message{Subject: "s", Data: []byte(data)}); err != nil {
				t.Fatal(err)
			}
		}
		// Whoever is left out is not looked at for loops.
		if err := accept(&Message{Subject: "s", Data: []byte("filtered"), Header: Header{HeaderVia: {route.via}}}); err != nil {
			t.Fatal(err)
		}
		stop()
		if len(sink.arrived) != 1 || sink.arrived[0] != "changed.s good" {
			t.Errorf("arrived: %q", sink.arrived)
		}
		if len(letters.letters) != 1 || letters.letters[0].Reason != DeadFilter || letters.letters[0].Message.Subject != "s" {
			t.Errorf("dead letters: %+v", letters.letters)
		}
		s := route.Stats()
		if s.Received != 6 || s.Delivered != 1 || s.Dropped[DropFiltered] != 3 || s.Dropped[DropSample] != 1 || s.Dropped[DropLoop] != 0 {
			t.Errorf("stats %+v", s)
		}
		if s.DroppedTotal() != 0 || s.LeftOut() != 4 || s.DeadLetters[DeadFilter] != 1 {
			t.Errorf("lost %d, left out %d, dead letters %v", s.DroppedTotal(), s.LeftOut(), s.DeadLetters)
		}
	})
}
