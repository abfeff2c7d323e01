package stages

import (
	"encoding/json"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/when"
	"github.com/natsrelay/natsrelay/relay"
)

// maxSampleKeys bounds what a sample remembers, to some 4 MiB. With more keys than this in one interval the oldest is forgotten: its
// next message is taken before its time, so there are more messages than asked for, never less.
const maxSampleKeys = 1 << 16

// A sample takes at most one message per key and interval, the first. An interval begins with the message that is taken.
//
// Keys are kept as hashes of 64 bits, so that long ones cost no more than short ones. Two that are taken for one by chance
// are less likely than a disk that lies: 2⁻³³ for any two of maxSampleKeys.
type sample struct {
	every time.Duration
	keyOf func(*relay.Message, *when.Document) (uint64, error)
	max   int

	mu     sync.Mutex
	recent map[uint64]struct{} // the keys in passed
	passed []passage           // a ring, oldest first: the interval is the same for all
	first  int                 // index of the oldest
}

// A passage is a message that was taken.
type passage struct {
	key uint64
	at  time.Time
}

func newSample(c *config.Sample) *sample {
	return &sample{every: c.Every, keyOf: sampleKey(c.Key), max: maxSampleKeys, recent: map[uint64]struct{}{}}
}

// takes reports whether the message is the first of its key in the interval. An error means that it has no key.
func (s *sample) takes(m *relay.Message, doc *when.Document) (bool, error) {
	key, err := s.keyOf(m, doc)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for len(s.recent) > 0 && now.Sub(s.passed[s.first].at) >= s.every {
		s.forget()
	}
	if _, ok := s.recent[key]; ok {
		return false, nil
	}
	if len(s.recent) == s.max {
		s.forget()
	}
	s.remember(passage{key, now})
	return true, nil
}

// forget drops the oldest passage.
func (s *sample) forget() {
	delete(s.recent, s.passed[s.first].key)
	s.first = (s.first + 1) % len(s.passed)
}

func (s *sample) remember(p passage) {
	n := len(s.recent)
	if n == len(s.passed) {
		s.grow()
	}
	s.passed[(s.first+n)%len(s.passed)] = p
	s.recent[p.key] = struct{}{}
}

// grow makes the ring larger, which is full.
func (s *sample) grow() {
	larger := make([]passage, min(max(2*len(s.passed), 16), s.max))
	n := copy(larger, s.passed[s.first:])
	copy(larger[n:], s.passed[:s.first])
	s.passed, s.first = larger, 0
}

// sampleKey returns what computes the key that the configuration names. Messages without the field, or without the header, have
// one key in common.
func sampleKey(name string) func(*relay.Message, *when.Document) (uint64, error) {
	seed := maphash.MakeSeed()
	if header, ok := strings.CutPrefix(name, "header."); ok {
		return func(m *relay.Message, _ *when.Document) (uint64, error) {
			return maphash.String(seed, m.Header.Get(header)), nil
		}
	}
	if field, ok := strings.CutPrefix(name, "json."); ok {
		path := strings.Split(field, ".")
		return func(_ *relay.Message, doc *when.Document) (uint64, error) { return fieldKey(seed, doc, path) }
	}
	return func(m *relay.Message, _ *when.Document) (uint64, error) { return maphash.String(seed, m.Subject), nil }
}

// fieldKey is the hash of a field's canonical JSON: 1 and "1" differ, the order of an object's fields does not matter.
func fieldKey(seed maphash.Seed, doc *when.Document, path []string) (uint64, error) {
	v, err := doc.Field(path)
	if err != nil {
		return 0, err
	}
	if s, ok := v.(string); ok {
		return maphash.String(seed, `"`+s), nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return 0, err // an infinite number
	}
	return maphash.Bytes(seed, text), nil
}
