package demo

import (
	"fmt"
	"strings"
	"time"
)

// say prints a line with the time of the demo in front.
func (d *demo) say(format string, args ...any) {
	d.screen.say("%s  %s", d.clock(), fmt.Sprintf(format, args...))
}

func (d *demo) clock() string { return fmt.Sprintf("%5.1f s", time.Since(d.began).Seconds()) }

// progress is the line that is renewed.
func (d *demo) progress() string {
	var b strings.Builder
	published := d.pub.published()
	fmt.Fprintf(&b, "%s  published %d", d.clock(), published)
	for _, r := range d.routes {
		arrived := r.tally.sum().distinct
		fmt.Fprintf(&b, "   → %s %d, %d to go", r.to, arrived, published-arrived)
	}
	return b.String()
}

// survivors says how many messages of each route outlived the relay.
func (d *demo) survivors() string {
	parts := make([]string, len(d.routes))
	for i, r := range d.routes {
		parts[i] = fmt.Sprintf("%d %s", r.survived, r.title())
	}
	return strings.Join(parts, ", ")
}

// verdict prints the table, and returns an error if anything was lost or out of order.
func (d *demo) verdict() error {
	published := d.pub.published()
	lost, disordered, foreign := 0, 0, 0
	d.screen.say("\n%-13s%10s%10s%13s%6s%12s%14s%15s",
		"route", "published", "delivered", "through disk", "lost", "duplicates", "out of order", "longest delay")
	for _, r := range d.routes {
		s := r.tally.sum()
		missing := published - s.distinct
		lost += missing
		disordered += s.disordered
		foreign += s.foreign
		d.screen.say("%-13s%10d%10d%13d%6d%12d%14d%13.1f s", r.title(), published, s.distinct,
			r.survived+d.log.toDisk(r.name), missing, s.duplicates, s.disordered, s.longest.Seconds())
	}
	d.screen.say("")
	d.recoveries()
	if lost > 0 || disordered > 0 || foreign > 0 {
		return fmt.Errorf("%d messages were lost, %d were out of order, %d were nobody's", lost, disordered, foreign)
	}
	d.screen.say("nothing was lost, everything came in order: each subject over HTTP, the whole route to the cloud")
	return nil
}

// recoveries says how fast the relay was when the receivers had come back.
func (d *demo) recoveries() {
	for _, r := range d.routes {
		if back := r.tally.sum().recovery; back.missing == 0 && back.backlog > 0 {
			d.screen.say("%s: first message %.2f s after the receiver was back, backlog of %d delivered after %.2f s",
				r.title(), back.first.Seconds(), back.backlog, back.caughtUp.Seconds())
		}
	}
}
