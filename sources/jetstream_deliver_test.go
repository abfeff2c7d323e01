package sources

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
)

// Where a consumer begins, and what it leaves out, is what the configuration says.
func TestJetStreamDeliverForms(t *testing.T) {
	for _, c := range []struct {
		deliver config.Deliver
		filter  []string
		want    []string // of 20 on the subjects s.0 … s.6 in turn; and the 21st, which comes later
	}{
		{deliver: config.Deliver{From: "all"}, want: numbers(1, 20)},
		{deliver: config.Deliver{From: "new"}},
		{deliver: config.Deliver{From: "last"}, want: numbers(20, 1)},
		{deliver: config.Deliver{From: "last_per_subject"}, want: numbers(14, 7)},
		{deliver: config.Deliver{From: "sequence", Sequence: 15}, want: numbers(15, 6)},
		{deliver: config.Deliver{From: "time"}, want: numbers(11, 10)},
		{deliver: config.Deliver{From: "all"}, filter: []string{"s.0"}, want: []string{"7", "14"}},
		{deliver: config.Deliver{From: "all"}, filter: []string{"s.0", "s.1"}, want: []string{"1", "7", "8", "14", "15"}},
		{deliver: config.Deliver{From: "last_per_subject"}, filter: []string{"s.0", "s.1"}, want: []string{"14", "15"}},
	} {
		t.Run(fmt.Sprint(c.deliver.From, c.filter), func(t *testing.T) {
			srv, stream := startStream(t)
			stream.publish(20)
			cfg := jsConfig()
			cfg.Deliver, cfg.Subjects = c.deliver, c.filter
			if c.deliver.From == "time" {
				cfg.Deliver.Time = stream.timeOf(11)
			}
			h := startJS(t, cfg, srv.URL())
			natstest.Eventually(t, "there is a consumer", func() bool { _, err := stream.js.Consumer(stream.ctx(), "S", "d"); return err == nil })
			stream.publish(1)
			natstest.Eventually(t, "the last message arrives", func() bool { got := h.data(); return len(got) > 0 && got[len(got)-1] == "21" })
			if diff := cmp.Diff(append(c.want, "21"), h.data()); diff != "" {
				t.Errorf("messages (-want +got)\n%s", diff)
			}
		})
	}
}

// timeOf returns when the stream stored the message of that sequence.
func (s *streamer) timeOf(sequence uint64) time.Time {
	s.t.Helper()
	stream, err := s.js.Stream(s.ctx(), "S")
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := stream.GetMsg(s.ctx(), sequence)
	if err != nil {
		s.t.Fatal(err)
	}
	return m.Time
}
