package test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/natsrelay/natsrelay/internal/tcpproxy"
)

// A stormPlan is all that is left to chance in a storm. It follows from the seed alone, so that a storm that has shown something can be made again. What
// happens between two events is not planned: the same plan may go well nine times of ten.
type stormPlan struct {
	seed uint64

	sizes    []int    // of the payloads of 1 … n, at least
	early    int      // as many of them are stored before the relay starts
	ownIDs   bool     // messages come with a Nats-Msg-Id
	subjects []string // what the route takes; nil: everything
	taken    []int    // the numbers that the route takes, in order

	once                           bool
	target                         string // settings of the target stream
	source, delivery, buffer, sink string // of the relay's configuration

	ackWait time.Duration
	length  time.Duration
	events  []stormEvent // by time
}

const (
	mostStormBytes = 24 << 20
	largestInStorm = 200 << 10
)

func planStorm(seed uint64) *stormPlan {
	r := rand.New(rand.NewPCG(seed, 0))
	p := &stormPlan{seed: seed, length: 1500*time.Millisecond + rand64(r, 3*time.Second)}
	p.drawMessages(r)
	p.drawSource(r)
	p.drawBuffer(r)
	p.drawSink(r)
	p.drawEvents(r)
	return p
}

// pick draws one of several.
func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func rand64(r *rand.Rand, below time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(below))).Truncate(time.Millisecond)
}

// drawMessages draws how many messages there are, how large they are, and which of them the route takes. What it does not take leaves holes in the
// sequences that it gets.
func (p *stormPlan) drawMessages(r *rand.Rand) {
	n := int(200 * math.Exp(r.Float64()*math.Log(25)))
	large, medium := pick(r, 0, 0, 0.01, 0.05, 0.3), pick(r, 0, 0.1, 0.6)
	for total := 0; len(p.sizes) < n && total < mostStormBytes; total += p.sizes[len(p.sizes)-1] {
		size := 0
		switch x := r.Float64(); {
		case x < large:
			size = r.IntN(largestInStorm)
		case x < large+medium:
			size = r.IntN(16 << 10)
		}
		p.sizes = append(p.sizes, size)
	}
	p.early = int(float64(len(p.sizes)) * pick(r, 0.3, 0.7, 1))
	p.ownIDs = r.IntN(4) == 0
	if r.IntN(2) == 0 {
		for _, i := range r.Perm(subjects)[:pick(r, 1, 3, subjects/2, subjects-1)] {
			p.subjects = append(p.subjects, fmt.Sprintf("test.%d", i))
		}
	}
	for n := range len(p.sizes) {
		if p.subjects == nil || slices.Contains(p.subjects, subjectOf(n+1)) {
			p.taken = append(p.taken, n+1)
		}
	}
}

func (p *stormPlan) drawSource(r *rand.Rand) {
	p.ackWait = pick[time.Duration](r, 2, 2, 3, 5, 10, 30) * time.Second
	p.source = fmt.Sprintf("%s\nack_wait = %q\nack_policy = %q\nmax_ack_pending = %d\npull_bytes = %q",
		fromStream, p.ackWait, pick(r, "explicit", "explicit", "all"), pick(r, 7, 20, 100, 500, 4096), pick(r, "64KiB", "128KiB", "512KiB", "1MiB", "8MiB"))
	if p.subjects != nil {
		p.source += "\nsubjects = [\"" + strings.Join(p.subjects, `", "`) + "\"]"
	}
	p.delivery = `ordering = "strict"`
	if r.IntN(3) == 0 { // so slow that the storm is over before all is delivered, or nearly
		p.delivery += fmt.Sprintf("\nrate_limit = %d", 1+int(float64(len(p.taken))/p.length.Seconds()*pick(r, 0.7, 1, 3)))
	}
}

func (p *stormPlan) drawBuffer(r *rand.Rand) {
	p.buffer = fmt.Sprintf("memory = %q", pick(r, "1MiB", "2MiB", "8MiB", "64MiB"))
	ack := "delivered"
	if r.IntN(4) == 0 {
		p.buffer += "\ndisk = 0"
	} else {
		ack = pick(r, ack, ack, "stored")
		p.buffer += fmt.Sprintf("\npersist = %q\nspill_after = %q\nsync = %q",
			pick(r, "outage", "outage", "always", "overflow"), pick(r, "0s", "200ms", "2s"), pick(r, "interval", "each"))
	}
	p.source += fmt.Sprintf("\nack = %q", ack)
}

func (p *stormPlan) drawSink(r *rand.Rand) {
	p.once = r.IntN(3) > 0
	// Half a second is shorter than many an outage: what an id would tell is forgotten by then.
	p.target = fmt.Sprintf(`, "duplicate_window": %d`, pick(r, 500*time.Millisecond, 2*time.Minute))
	p.sink = fmt.Sprintf("exactly_once = %v", p.once)
	if r.IntN(2) == 0 {
		p.target += `, "allow_batched": true`
	}
	if !p.once && r.IntN(3) == 0 {
		p.sink += "\ndedupe = false"
	}
}

// payload returns what message n carries: its number, and what makes it as large as it is to be, other bytes in each.
func (p *stormPlan) payload(n int) string {
	head := strconv.Itoa(n) + " "
	return head + strings.Repeat(head, p.sizes[n-1]/len(head))
}

// A stormEvent is what happens to one of the participants, or a few more messages.
type stormEvent struct {
	at   time.Duration
	what string
	do   func(*storm)
}

// A stormVictim is one of the participants, and what may happen to it.
type stormVictim struct {
	name  string
	line  bool
	fates []stormFate
}

// A stormFate takes a participant away, for a while, and brings it back.
type stormFate struct {
	goes, back string
	away, home func(*storm)
}

var stormVictims = []stormVictim{
	{"relay", false, []stormFate{{"killed", "starts", (*storm).killRelay, func(s *storm) { s.relay.start() }}}},
	{"source", false, []stormFate{{"killed", "starts", func(s *storm) { s.link.source.Kill() }, func(s *storm) { s.link.source.Start() }}}},
	{"target", false, []stormFate{{"killed", "starts", func(s *storm) { s.link.target.Kill() }, func(s *storm) { s.link.target.Start() }}}},
	{"near", true, fatesOfLine(func(s *storm) *tcpproxy.Proxy { return s.near })},
	{"far", true, fatesOfLine(func(s *storm) *tcpproxy.Proxy { return s.far })},
}

// fatesOfLine are a line's: it stands still before it is cut, or the server does not notice that it is, until later.
func fatesOfLine(line func(*storm) *tcpproxy.Proxy) []stormFate {
	cut := func(s *storm) { line(s).Cut(); line(s).Resume() }
	stalls := stormFate{"stalls", "is cut", func(s *storm) { line(s).Stall() }, cut}
	return []stormFate{stalls, stalls, {"half-open", "is cut", func(s *storm) { line(s).HalfOpen() }, cut}}
}

// drawEvents draws what happens to each of the participants by itself. It happens to several at a time: each has its own pace, or is spared.
func (p *stormPlan) drawEvents(r *rand.Rand) {
	sourceAway := p.drawFates(r)
	p.drawLate(r, sourceAway)
	slices.SortStableFunc(p.events, func(a, b stormEvent) int { return cmp.Compare(a.at, b.at) })
}

// drawFates returns when the source is not there, too.
func (p *stormPlan) drawFates(r *rand.Rand) (sourceAway [][2]time.Duration) {
	for _, v := range stormVictims {
		pace := pick[time.Duration](r, 0, 200, 600, 1500) * time.Millisecond
		if pace == 0 {
			continue
		}
		for at := rand64(r, 2*pace); at < p.length; at += rand64(r, 2*pace) + time.Millisecond {
			back := at + p.drawAway(r, v)
			f := pick(r, v.fates...)
			p.events = append(p.events, stormEvent{at, v.name + " " + f.goes, f.away}, stormEvent{back, v.name + " " + f.back, f.home})
			if v.name == "source" {
				sourceAway = append(sourceAway, [2]time.Duration{at, back})
			}
			at = back
		}
	}
	return sourceAway
}

// drawAway draws for how long a participant is away. A line that is just cut is not away at all.
func (p *stormPlan) drawAway(r *rand.Rand, v stormVictim) time.Duration {
	switch x := r.IntN(10); {
	case v.line && x < 5:
		return 0
	case x < 5:
		return rand64(r, 50*time.Millisecond)
	case x == 9 && v.name == "near" && p.ackWait <= 3*time.Second:
		return p.ackWait + rand64(r, time.Second) // the consumer delivers again what is under way, into a line that stands still
	}
	return rand64(r, time.Second)
}

// drawLate spreads the messages that are not there from the beginning over the storm, where the source is there to take them.
func (p *stormPlan) drawLate(r *rand.Rand, sourceAway [][2]time.Duration) {
	for from := p.early; from < len(p.sizes); {
		to := min(len(p.sizes), from+max(1, len(p.sizes)/10))
		at := (p.length * time.Duration(from-p.early) / time.Duration(len(p.sizes)-p.early)).Truncate(time.Millisecond)
		for _, away := range sourceAway {
			if at >= away[0] && at <= away[1] {
				at = away[1] + time.Millisecond
			}
		}
		first := from + 1
		p.events = append(p.events, stormEvent{at, fmt.Sprintf("%d … %d are published", first, to), func(s *storm) { s.publish(first, to) }})
		from = to
	}
}

// String says what is planned, for whom looks for the reason of a failure.
func (p *stormPlan) String() string {
	var b strings.Builder
	total := 0
	for _, size := range p.sizes {
		total += size
	}
	fmt.Fprintf(&b, "seed %d: %d messages of %d KiB in all, %d of them early, %d taken, own ids: %v\n", p.seed, len(p.sizes), total>>10, p.early, len(p.taken), p.ownIDs)
	fmt.Fprintf(&b, "target%s\n[source]\n%s\n[delivery]\n%s\n[buffer]\n%s\n[sink]\n%s\n", p.target, p.source, p.delivery, p.buffer, p.sink)
	for _, e := range p.events {
		fmt.Fprintf(&b, "%8v %s\n", e.at, e.what)
	}
	return b.String()
}
