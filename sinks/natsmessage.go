package sinks

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/relay"
)

// A natsMessage is filled with one message after the other, to be published.
type natsMessage struct {
	nats.Msg
	dedupe  bool
	target  *streamConfig // the stream it goes to; nil: to no stream
	checked string        // the last subject that was found valid: messages of one subject come in runs

	header nats.Header // scratch: the message's headers and what is added to them
	added  []addedHeader
}

// An addedHeader is sent beside the message's own.
type addedHeader struct {
	key   string
	value [1]string // "": not with this message
}

// keepHeaders is the largest scratch map that is kept: clearing costs by the size it once had.
const keepHeaders = 32

// Places in natsMessage.added.
const (
	addID = iota
	addOrigin
	addExpected
)

func newNATSMessage(dedupe bool) natsMessage {
	return natsMessage{dedupe: dedupe, header: make(nats.Header), added: []addedHeader{
		addID:       {key: relay.HeaderMsgID},
		addOrigin:   {key: HeaderOrigin},
		addExpected: {key: headerExpectedLastID},
	}}
}

// forget drops what it holds of the last message.
func (p *natsMessage) forget() {
	p.Msg = nats.Msg{}
	clear(p.header)
}

// prepare fills p with m and checks it. The message itself is not changed: it may be sent again,
// by another lane, at any time.
func (p *natsMessage) prepare(m *relay.Message, maxPayload int64) (size int64, err error) {
	if m.Subject == "" || m.Subject != p.checked {
		if err := checkSubject(m.Subject); err != nil {
			return 0, err
		}
		p.checked = m.Subject
	}
	p.added[addID].value[0] = ""
	if p.dedupe && m.Header.Get(relay.HeaderMsgID) == "" {
		p.added[addID].value[0] = m.ID
	}
	headerBytes, err := p.prepareHeader(m)
	if err != nil {
		return 0, err
	}
	if size = int64(headerBytes + len(m.Data)); size > maxPayload {
		return 0, fmt.Errorf("%w: %d bytes with its headers, and the server takes %d (max_payload)", errRefused, size, maxPayload)
	}
	p.Subject, p.Data = m.Subject, m.Data
	return size + int64(len(m.Subject)), nil
}

// prepareHeader sets p.Header, and returns its size on the wire. nats.go encodes from a map only, so that what is added goes
// into a copy of the message's; the copy's map is reused (a new map each message: +300 ns, 2 allocations).
func (p *natsMessage) prepareHeader(m *relay.Message) (size int, err error) {
	if len(p.header) > keepHeaders {
		p.header = make(nats.Header)
	} else {
		clear(p.header)
	}
	for key, values := range m.Header {
		n, err := headerSize(key, values)
		if err != nil {
			return 0, err
		}
		if p.target == nil || !p.target.leavesOut(key, m.Stream != "") {
			size += n
			p.header[key] = values
		}
	}
	for i := range p.added {
		a := &p.added[i]
		if a.value[0] == "" {
			continue
		}
		n, err := headerSize(a.key, a.value[:])
		if err != nil {
			return 0, err
		}
		size += n
		p.header[a.key] = a.value[:]
	}
	if p.Header = p.header; len(p.header) == 0 {
		p.Header = nil
		return 0, nil
	}
	return size + len("NATS/1.0\r\n\r\n"), nil
}

// isControl reports whether a header is meant for the stream that the message came from, which keeps it with the message: what the
// publisher expected of that stream, the batch it was published in, where that stream had it from. Another stream would
// judge the message by it, and refuse it. nats-server's own sources leave the first out too.
func isControl(key string) bool {
	return strings.HasPrefix(key, "Nats-") &&
		(strings.HasPrefix(key, "Nats-Expected-") || strings.HasPrefix(key, "Nats-Batch-") || key == "Nats-Stream-Source")
}

// isCommand reports whether a header tells a stream what to do with the message: to judge it, to replace others by it, to add it to a counter, to delete it after
// a while, to publish it at times.
func isCommand(key string) bool {
	return isControl(key) || key == headerRollup || key == headerTTL || key == headerIncr || strings.HasPrefix(key, "Nats-Schedule")
}

const (
	headerRollup = "Nats-Rollup"
	headerTTL    = "Nats-TTL"
	headerIncr   = "Nats-Incr"
)

// leavesOut reports whether a header is not sent to the stream. What the stream is not made for, it would refuse the message for; whoever has published that to
// another stream did nothing wrong, and would not hear of it, so there the header alone stays behind (nats-server's own sources do not heed it either).
// Nor is a schedule kept twice, and the header of what one has brought forth is refused by every stream.
func (c *streamConfig) leavesOut(key string, fromStream bool) bool {
	if !fromStream || !isCommand(key) {
		return isControl(key)
	}
	switch key {
	case headerRollup:
		return !c.AllowRollup
	case headerTTL:
		return !c.AllowMsgTTL
	case headerIncr:
		return !c.AllowMsgCounter
	}
	return true
}

// isRefusal says whether the error is the message's fault. Those of nats.go are a second line: the
// messages that it would damage or hold against the connection are refused before.
func isRefusal(err error) bool {
	return errors.Is(err, errRefused) || errors.Is(err, nats.ErrMaxPayload) ||
		errors.Is(err, nats.ErrBadHeaderMsg) || errors.Is(err, nats.ErrBadSubject)
}

// publishError says what an error of publishing means, which is not the message's fault.
func publishError(err error) error {
	switch {
	case errors.Is(err, nats.ErrHeadersNotSupported):
		return errNATSHeaders
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed):
		return errNATSCut
	}
	return fmt.Errorf("publish: %w", err)
}
