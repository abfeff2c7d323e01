package main

import (
	"encoding/json"
	"sync"
)

// lastWords keeps what is logged, for those who say it in other words than a log.
type lastWords struct {
	mu    sync.Mutex
	lines []logLine
}

type logLine struct {
	Level, Message, Error string
}

// Write takes one line of zerolog's.
func (w *lastWords) Write(p []byte) (int, error) {
	var line logLine
	if err := json.Unmarshal(p, &line); err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, line)
	return len(p), nil
}

// err returns the last error that was logged, or else the given one.
func (w *lastWords) err(otherwise error) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.lines) - 1; i >= 0; i-- {
		if w.lines[i].Error != "" {
			return w.lines[i].Error
		}
	}
	return otherwise.Error()
}

// notes returns what was logged.
func (w *lastWords) notes() (texts []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.lines {
		text := line.Message
		if line.Level == "warn" {
			text = "warning: " + text
		}
		texts = append(texts, text)
	}
	return texts
}
