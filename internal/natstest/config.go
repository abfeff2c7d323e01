package natstest

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/config"
)

// Config returns a connection's settings with pauses short enough for a test.
func Config(urls ...string) *config.NATS {
	return &config.NATS{
		Name:           "test",
		URLs:           urls,
		PingInterval:   20 * time.Second,
		MaxPingsOut:    3,
		ConnectTimeout: 5 * time.Second,
		Reconnect:      config.Backoff{Min: 2 * time.Millisecond, Max: 20 * time.Millisecond},
	}
}

// A Log collects log lines of every level; a failed test prints them.
type Log struct {
	zerolog.Logger

	mu  sync.Mutex
	buf bytes.Buffer
}

// NewLog returns an empty log.
func NewLog(t testing.TB) *Log {
	l := new(Log)
	l.Logger = zerolog.New(l).Level(zerolog.TraceLevel)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", l.String())
		}
	})
	return l
}

// Write adds one line.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns everything logged so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Count returns how many lines hold all the given texts.
func (l *Log) Count(texts ...string) (n int) {
	for line := range strings.Lines(l.String()) {
		if containsAll(line, texts) {
			n++
		}
	}
	return n
}

func containsAll(line string, texts []string) bool {
	for _, text := range texts {
		if !strings.Contains(line, text) {
			return false
		}
	}
	return true
}
