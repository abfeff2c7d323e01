package demo

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
)

// tailLines is how many of the relay's last log lines are kept for a failure.
const tailLines = 40

// A relayLog takes what the relay writes to stderr. It is safe for concurrent use.
type relayLog struct {
	mu      sync.Mutex
	partial []byte
	tail    []string
	spilled map[string]int // messages that each route had written to disk when it stopped in order
}

func newRelayLog() *relayLog { return &relayLog{spilled: map[string]int{}} }

// Write takes a piece of the log, of any size.
func (l *relayLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		line, rest, found := bytes.Cut(l.partial, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.line(line)
		l.partial = rest
	}
}

func (l *relayLog) line(line []byte) {
	if len(l.tail) == tailLines {
		l.tail = append(l.tail[:0], l.tail[1:]...)
	}
	l.tail = append(l.tail, string(line))
	var entry struct {
		Route, Message string
		Spilled        int
	}
	if err := json.Unmarshal(line, &entry); err == nil && entry.Message == "route stopped" {
		l.spilled[entry.Route] += entry.Spilled
	}
}

// toDisk returns how many messages the route had written to disk when it stopped in order.
func (l *relayLog) toDisk(route string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spilled[route]
}

// String returns the last lines.
func (l *relayLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.tail, "\n")
}
