package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
)

// A message on disk is the Data of one spool record; the record itself keeps the sequence and the time of arrival:
//
//	version  1 byte, recordVersion
//	stream   uvarint length, bytes; sequence, uvarint: only with originFlag
//	subject  uvarint length, bytes
//	id       uvarint length, bytes
//	headers  uvarint count of key-value pairs, then for each: key (uvarint length, bytes), value (the same)
//	payload  the rest
//
// A message with a verdict has the version condemnedVersion, and behind that two strings: reason and error. One that comes from a stream
// has originFlag in the version, too, and one that was put back has lateFlag.
//
// A key with several values is several pairs, values in their order; keys are sorted, so that equal messages are equal bytes.

const (
	recordVersion    = 1
	condemnedVersion = 2
	originFlag       = 1 << 3
	lateFlag         = 1 << 4
)

var errRecord = errors.New("not a message record")

// appendRecord appends the message's bytes to dst.
func appendRecord(dst []byte, m *Message) []byte {
	var flags byte
	if m.Stream != "" {
		flags = originFlag
	}
	if m.Late {
		flags |= lateFlag
	}
	if v := m.verdict; v != nil {
		dst = appendString(appendString(append(dst, condemnedVersion|flags), v.reason), v.err.Error())
	} else {
		dst = append(dst, recordVersion|flags)
	}
	if m.Stream != "" {
		dst = binary.AppendUvarint(appendString(dst, m.Stream), m.Sequence)
	}
	dst = appendString(dst, m.Subject)
	dst = appendString(dst, m.ID)
	keys, pairs := make([]string, 0, 8), 0
	for k, vs := range m.Header {
		keys = append(keys, k)
		pairs += len(vs)
	}
	slices.Sort(keys)
	dst = binary.AppendUvarint(dst, uint64(pairs))
	for _, k := range keys {
		for _, v := range m.Header[k] {
			dst = appendString(appendString(dst, k), v)
		}
	}
	return append(dst, m.Data...)
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// decodeRecord fills m. The message owns its memory: one that waits long must not hold on to all that was read together with it.
func decodeRecord(m *Message, rec spool.Record) error {
	if len(rec.Data) == 0 {
		return fmt.Errorf("%w: it is empty", errRecord)
	}
	d := decoder{rest: rec.Data[1:]}
	switch v := rec.Data[0] &^ (originFlag | lateFlag); v {
	case recordVersion:
	case condemnedVersion:
		m.condemn(d.string(), errors.New(d.string()))
	default:
		return fmt.Errorf("%w that this version can read: it has version %d, expected %d", errRecord, v, condemnedVersion)
	}
	if rec.Data[0]&originFlag != 0 {
		if m.Stream, m.Sequence = d.string(), d.uvarint(); m.Stream == "" {
			return fmt.Errorf("%w: its stream has no name", errRecord)
		}
	}
	m.Late = rec.Data[0]&lateFlag != 0
	m.Time = time.Unix(0, rec.Time)
	m.Subject = d.string()
	m.ID = d.string()
	pairs := d.uvarint()
	if pairs > uint64(len(d.rest)) { // each takes two bytes at least
		return fmt.Errorf("%w: %d headers in %d bytes", errRecord, pairs, len(d.rest))
	}
	if pairs > 0 {
		m.Header = make(Header, min(pairs, 64))
	}
	for range pairs {
		k := d.string()
		m.Header[k] = append(m.Header[k], d.string())
	}
	if d.short {
		return fmt.Errorf("%w: it is cut short", errRecord)
	}
	m.Data = bytes.Clone(d.rest)
	return nil
}

// decoder reads fields off the front of rest; after the first that does not fit it returns zeros and short is set.
type decoder struct {
	rest  []byte
	short bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.short = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.short = true
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}
