package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// A screen shows what happens: lines that stay, and one line of progress that is renewed in place on
// a terminal, and printed every second elsewhere. It is safe for concurrent use.
type screen struct {
	tty  *os.File    // nil: not a terminal
	lost func(error) // called when it cannot be written to

	mu  sync.Mutex
	out io.Writer
}

func newScreen(out io.Writer, lost func(error)) *screen {
	s := &screen{out: out, lost: lost}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.tty = f
	}
	return s
}

// say prints lines that stay.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	if _, err := fmt.Fprintf(s.out, format+"\n", args...); err != nil {
		s.lost(err)
	}
}

// clear wipes the line of progress away. The lock is held.
func (s *screen) clear() {
	if s.tty != nil {
		fmt.Fprint(s.out, "\r\x1b[K")
	}
}

// follow shows progress until ctx ends.
func (s *screen) follow(ctx context.Context, progress func() string) {
	every := time.Second
	if s.tty != nil {
		every = 100 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			s.clear()
			return
		case <-tick.C:
			s.show(progress())
		}
	}
}

func (s *screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty == nil {
		if _, err := fmt.Fprintln(s.out, line); err != nil {
			s.lost(err)
		}
		return
	}
	s.clear()
	if width, _, err := term.GetSize(int(s.tty.Fd())); err == nil && width > 0 {
		r := []rune(line)
		line = string(r[:min(len(r), width-1)])
	}
	fmt.Fprint(s.out, line)
}
