package relay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
)

// A Stored is a message on disk: what the spool commands show, export and replay.
type Stored struct {
	Seq uint64 // in the spool
	Message
}

// line is a message as one line of JSON. Exactly one of Data and DataBase64 is there: a payload that is JSON, in the one
// form that comes out as the same bytes again, is shown as such (CloudEvents JSON format, section 3.1).
type line struct {
	Seq        uint64          `json:"seq,omitempty"`
	ID         string          `json:"id"`
	Subject    string          `json:"subject"`
	Time       time.Time       `json:"time"`
	Stream     string          `json:"stream,omitempty"`
	Sequence   uint64          `json:"sequence,omitempty"`
	Headers    Header          `json:"headers,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
	DataBase64 *[]byte         `json:"data_base64,omitempty"`
	Verdict    *lineVerdict    `json:"verdict,omitempty"`
}

// lineVerdict says that the message waits to become a dead letter, and why.
type lineVerdict struct {
	Reason string `json:"reason"`
	Error  string `json:"error"`
}

// AppendJSONLine appends the message and a newline to dst.
func (s *Stored) AppendJSONLine(dst []byte) ([]byte, error) {
	l := line{Seq: s.Seq, ID: s.ID, Subject: s.Subject, Time: s.Time.UTC(), Stream: s.Stream, Sequence: s.Sequence, Headers: s.Header}
	if isCompact(s.Data) {
		l.Data = s.Data
	} else {
		l.DataBase64 = &s.Data
	}
	if v := s.verdict; v != nil {
		l.Verdict = &lineVerdict{v.reason, v.Error()}
	}
	out := bytes.NewBuffer(dst)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(l); err != nil {
		return dst, fmt.Errorf("message %d: %w", s.Seq, err)
	}
	return out.Bytes(), nil
}

// isCompact reports whether data is JSON without white space between its tokens.
func isCompact(data []byte) bool {
	var c bytes.Buffer
	return json.Compact(&c, data) == nil && bytes.Equal(c.Bytes(), data)
}

// ParseJSONLine reads what AppendJSONLine has written. The sequence number is of no importance: a replayed message gets a new one.
func ParseJSONLine(data []byte) (*Stored, error) {
	var l line
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("there is more on the line than one message")
	}
	s := &Stored{Seq: l.Seq, Message: Message{ID: l.ID, Subject: l.Subject, Time: l.Time, Stream: l.Stream, Sequence: l.Sequence, Header: l.Headers, Data: l.Data}}
	if v := l.Verdict; v != nil {
		s.condemn(v.Reason, errors.New(v.Error))
	}
	switch {
	case l.Subject == "":
		return nil, errors.New(`"subject" is missing`)
	case l.ID == "":
		return nil, errors.New(`"id" is missing`)
	case !time.Unix(0, l.Time.UnixNano()).Equal(l.Time): // a record has nanoseconds in 64 bits
		return nil, errors.New(`"time" is missing, or not of the years 1678 to 2262`)
	case (l.Data == nil) == (l.DataBase64 == nil):
		return nil, errors.New(`one of "data" and "data_base64" is needed`)
	case l.DataBase64 != nil:
		s.Data = *l.DataBase64
	}
	return s, nil
}

// EncodeRecord returns the message as a record of a spool.
func (s *Stored) EncodeRecord() spool.Record {
	return spool.Record{Seq: s.Seq, Time: s.Time.UnixNano(), Data: appendRecord(nil, &s.Message)}
}

// DecodeRecord turns a spool record back into its message.
func DecodeRecord(rec spool.Record) (*Stored, error) {
	s := &Stored{Seq: rec.Seq}
	if err := decodeRecord(&s.Message, rec); err != nil {
		return nil, fmt.Errorf("record %d: %w", rec.Seq, err)
	}
	return s, nil
}
