package relay

// A Stage looks at a message before the route takes it, and may change it: filters, samples, transforms. It is called once a
// message, by the source's goroutines, several at a time.
//
// An error says that nothing can be said of this message. It is not changed then, and becomes a dead letter.
type Stage func(*Message) (Verdict, error)

// Verdict is what a Stage says of a message.
type Verdict uint8

const (
	Pass     Verdict = iota // the route takes it
	Filtered                // the filter does not want it
	Sampled                 // one like it was taken a short while ago
)

// Reasons for leaving a message out, as it is wanted: counted with the losses, but not logged as one.
const (
	DropFiltered = "filtered"
	DropSample   = "sample"
)

// judge runs the stage. It reports whether the message goes on, as a dead letter perhaps.
func (r *Route) judge(m *Message) bool {
	verdict, err := r.opts.Stage(m)
	switch {
	case err != nil && r.direct.takes(m):
		r.direct.giveUp(m, unfit(), err) // who asked knows; a dead letter would have nobody to answer
		return false
	case err != nil:
		m.condemn(DeadFilter, err)
	case verdict == Filtered:
		r.count.filtered.Add(1)
		return false
	case verdict == Sampled:
		r.count.sampled.Add(1)
		return false
	}
	return true
}

// LeftOut sums the messages that filter and sample left out. DroppedTotal is without them.
func (s RouteStats) LeftOut() uint64 { return s.Dropped[DropFiltered] + s.Dropped[DropSample] }
