package sinks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/natsrelay/natsrelay/relay"
)

// A format says how messages become the body of a request: the piece of each message, and what stands around them.
type format struct {
	contentType           string // "": the message's own
	begin, separator, end string
	single                bool // one message a request, with headers of its own

	// encode returns the piece of a message; it may append it to buf, which it returns too. An error says that this
	// message cannot be sent in this format.
	encode func(buf []byte, m *relay.Message) (rest, piece []byte, err error)
}

// Errors of messages that a format cannot carry.
var (
	errNewline = errors.New("the payload has a newline in it and is not JSON, so format lines cannot carry it")
	errNotJSON = errors.New("the payload is not JSON, as format json needs it")
)

// formatNamed returns the format that the configuration calls so.
func formatNamed(name string) format {
	switch name {
	case "raw":
		return format{single: true, encode: encodeRaw}
	case "lines":
		return format{contentType: "application/x-ndjson", separator: "\n", encode: encodeLine}
	case "json":
		return format{contentType: "application/json", begin: "[", separator: ",", end: "]", encode: encodeJSON}
	case "envelope":
		return format{contentType: "application/x-ndjson", separator: "\n", end: "\n", encode: encodeEnvelope}
	case "cloudevents":
		return format{contentType: "application/cloudevents+json; charset=utf-8", single: true, encode: encodeSingleEvent}
	case "cloudevents_batch":
		return format{contentType: "application/cloudevents-batch+json; charset=utf-8", begin: "[", separator: ",", end: "]", encode: encodeCloudEvent}
	}
	panic(fmt.Sprintf("format %q: the configuration admits only those above", name))
}

// isPlain reports whether a body is the piece of its message and nothing else.
func (f *format) isPlain() bool { return f.single && f.begin == "" && f.end == "" }

// size returns what a piece adds to the size of a body.
func (f *format) size(p *piece, first bool) int64 {
	if first {
		return int64(len(f.begin) + len(p.data) + len(f.end))
	}
	return int64(len(f.separator) + len(p.data))
}

// join appends the body of a request to buf.
func (f *format) join(buf []byte, run []piece) []byte {
	buf = append(buf, f.begin...)
	for i := range run {
		if i > 0 {
			buf = append(buf, f.separator...)
		}
		buf = append(buf, run[i].data...)
	}
	return append(buf, f.end...)
}

func encodeRaw(buf []byte, m *relay.Message) (rest, piece []byte, err error) {
	return buf, m.Data, nil
}

func encodeLine(buf []byte, m *relay.Message) (rest, piece []byte, err error) {
	if bytes.IndexByte(m.Data, '\n') < 0 {
		return buf, m.Data, nil
	}
	rest, err = appendCompact(buf, m.Data)
	if err != nil {
		return buf, nil, errNewline
	}
	return rest, rest[len(buf):], nil
}

func encodeJSON(buf []byte, m *relay.Message) (rest, piece []byte, err error) {
	if !json.Valid(m.Data) {
		return buf, nil, errNotJSON
	}
	return buf, m.Data, nil
}

// appendCompact appends the JSON src without the white space between its tokens.
func appendCompact(buf, src []byte) ([]byte, error) {
	out := bytes.NewBuffer(buf)
	err := json.Compact(out, src)
	return out.Bytes(), err
}
