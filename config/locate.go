package config

import (
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// A place is where a key first appears in the file, and where the keys or elements of its value do.
type place struct {
	off   int               // byte offset
	keys  map[string]*place // of a table
	elems []*place          // of an array
}

// key returns the place of a key in the table p, or p itself if it has none: near is better than nowhere.
func (p *place) key(name string) *place {
	if k, ok := p.keys[name]; ok {
		return k
	}
	return p
}

// elem returns the place of an element of the array p.
func (p *place) elem(i int) *place {
	if i < len(p.elems) {
		return p.elems[i]
	}
	return p
}

// add returns the place of a key in the table p, and makes it if this is the key's first appearance.
func (p *place) add(name string, off int) *place {
	if k, ok := p.keys[name]; ok {
		return k
	}
	if p.keys == nil {
		p.keys = make(map[string]*place)
	}
	k := &place{off: off}
	p.keys[name] = k
	return k
}

// position turns a byte offset into line and column, both from 1, the column in characters.
// Package toml sometimes reports offsets outside of src, or inside a character; those become the nearest before that is neither.
func position(src string, off int) (line, col int) {
	off = max(0, min(off, len(src)))
	for 0 < off && off < len(src) && !utf8.RuneStart(src[off]) {
		off--
	}
	before := src[:off]
	line = 1 + strings.Count(before, "\n")
	return line, 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}

// locate finds the place of every key in src, which package toml must have accepted: toml keeps no positions
// (https://github.com/BurntSushi/toml v1.6 has them in its syntax errors only), and every error here needs one.
// Because src is known to be valid, this scanner only has to know where things end, not what they mean.
func locate(src string) *place {
	s := &scanner{src: src}
	root := new(place)
	table := root
	for s.skipBlank(); s.pos < len(s.src); s.skipBlank() {
		start := s.pos
		if s.peek() == '[' {
			table = s.header(root)
		} else {
			s.pair(table)
		}
		if s.pos == start { // not TOML; the promise above was broken
			break
		}
	}
	return root
}

type scanner struct {
	src string
	pos int
}

// A keyPart is one of the names in a dotted key.
type keyPart struct {
	name string
	off  int
}

// peek returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.src) {
		return s.src[s.pos]
	}
	return 0
}

// accept steps over token if it comes next.
func (s *scanner) accept(token string) bool {
	if !strings.HasPrefix(s.src[s.pos:], token) {
		return false
	}
	s.pos += len(token)
	return true
}

// skipUntil moves to the first byte out of set.
func (s *scanner) skipUntil(set string) {
	if i := strings.IndexAny(s.src[s.pos:], set); i >= 0 {
		s.pos += i
	} else {
		s.pos = len(s.src)
	}
}

// skipBlank steps over spaces, newlines and comments.
func (s *scanner) skipBlank() {
	for {
		switch s.peek() {
		case ' ', '\t', '\r', '\n':
			s.pos++
		case '#':
			s.skipUntil("\n")
		default:
			return
		}
	}
}

// header scans [a.b] or [[a.b]] and returns the table that it opens.
func (s *scanner) header(root *place) *place {
	s.accept("[")
	isArray := s.accept("[")
	table := root
	parts := s.key()
	for i, part := range parts {
		table = table.add(part.name, part.off)
		if isArray && i == len(parts)-1 {
			table.elems = append(table.elems, &place{off: part.off})
		}
		if n := len(table.elems); n > 0 { // [a.b] after [[a]] is about the latest a
			table = table.elems[n-1]
		}
	}
	s.accept("]")
	s.accept("]")
	return table
}

// pair scans key = value.
func (s *scanner) pair(table *place) {
	for _, part := range s.key() {
		table = table.add(part.name, part.off)
	}
	s.accept("=")
	s.skipBlank()
	s.value(table)
}

// key scans a dotted key and the blanks around it.
func (s *scanner) key() []keyPart {
	var parts []keyPart
	for {
		s.skipBlank()
		off := s.pos
		parts = append(parts, keyPart{s.keyName(), off})
		s.skipBlank()
		if !s.accept(".") {
			return parts
		}
	}
}

func (s *scanner) keyName() string {
	start := s.pos
	quote := s.peek()
	if quote != '"' && quote != '\'' {
		s.skipUntil(" \t\r\n.=]")
		return s.src[start:s.pos]
	}
	s.line(quote)
	return unquote(s.src[start:s.pos])
}

// unquote returns the key that quoted stands for. Package toml knows the escapes.
func unquote(quoted string) string {
	if !strings.Contains(quoted, `\`) {
		return strings.Trim(quoted, quoted[:1])
	}
	var v struct{ Key string }
	if _, err := toml.Decode("Key = "+quoted, &v); err != nil {
		return quoted
	}
	return v.Key
}

// value scans a value; what it holds goes below at.
func (s *scanner) value(at *place) {
	switch s.peek() {
	case '"', '\'':
		s.text()
	case '[':
		s.pos++
		s.list("]", func() {
			elem := &place{off: s.pos}
			at.elems = append(at.elems, elem)
			s.value(elem)
		})
	case '{':
		s.pos++
		s.list("}", func() { s.pair(at) })
	default: // number, boolean or date, which may have a space inside
		s.skipUntil(",]}#\n")
	}
}

// list scans items with commas between them up to end.
func (s *scanner) list(end string, item func()) {
	for s.skipBlank(); s.pos < len(s.src) && !s.accept(end); s.skipBlank() {
		start := s.pos
		item()
		s.skipBlank()
		s.accept(",")
		if s.pos == start {
			return
		}
	}
}

// text scans a string of any of the four kinds.
func (s *scanner) text() {
	quote := s.peek()
	triple := strings.Repeat(string(quote), 3)
	if !strings.HasPrefix(s.src[s.pos:], triple) {
		s.line(quote)
		return
	}
	s.pos += len(triple)
	for s.pos < len(s.src) && !s.accept(triple) {
		s.step(quote)
	}
	// Up to two more quotes belong to the string: """"a"""" is "a".
	for range 2 {
		s.accept(string(quote))
	}
}

// line scans a string of one line.
func (s *scanner) line(quote byte) {
	s.pos++
	for s.pos < len(s.src) && s.peek() != quote {
		s.step(quote)
	}
	s.accept(string(quote))
}

// step moves one byte on in a string, or over an escape; single quotes know none.
func (s *scanner) step(quote byte) {
	if s.peek() == '\\' && quote == '"' {
		s.pos++
	}
	s.pos = min(s.pos+1, len(s.src))
}
