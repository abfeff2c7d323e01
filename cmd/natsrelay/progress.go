package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A progress shows how far long work has come: a bar on a terminal, a line every few seconds elsewhere.
// It belongs to one goroutine. Work that is over before the first line is due shows nothing.
type progress struct {
	out         io.Writer
	doing, unit string
	terminal    bool
	next        time.Time
	shown       bool
}

const (
	barEvery  = 100 * time.Millisecond
	lineEvery = 5 * time.Second
	barWidth  = 30
)

func newProgress(out io.Writer, doing, unit string) *progress {
	p := &progress{out: out, doing: doing, unit: unit, terminal: isTerminal(out)}
	p.next = time.Now().Add(p.every())
	return p
}

func (p *progress) every() time.Duration {
	if p.terminal {
		return barEvery
	}
	return lineEvery
}

// set shows that so much of the total is done, if it is time to.
func (p *progress) set(done, total int64) {
	now := time.Now()
	if now.Before(p.next) {
		return
	}
	p.next, p.shown = now.Add(p.every()), true
	share := 1.0
	if total > 0 {
		share = min(1, float64(done)/float64(total))
	}
	if !p.terminal {
		fmt.Fprintf(p.out, "%s: %d of %d %s (%.0f %%)\n", p.doing, done, total, p.unit, 100*share)
		return
	}
	full := int(share * barWidth)
	fmt.Fprintf(p.out, "\r\x1b[K%s [%s%s] %3.0f %%", p.doing, strings.Repeat("#", full), strings.Repeat("-", barWidth-full), 100*share)
}

// end wipes the bar away. It may be called more than once.
func (p *progress) end() {
	if p.terminal && p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}
