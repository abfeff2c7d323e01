package sinks

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

// encodeEnvelope makes a line of NDJSON: id, subject, time, headers, and data if the payload is JSON, else data_base64.
// `natsrelay spool export` writes the same, so that what arrives can be replayed.
func encodeEnvelope(buf []byte, m *relay.Message) (rest, piece []byte, err error) {
	start := len(buf)
	buf = append(buf, `{"id":`...)
	buf = appendString(buf, m.ID)
	buf = append(buf, `,"subject":`...)
	buf = appendString(buf, m.Subject)
	buf = append(buf, `,"time":`...)
	buf = appendTime(buf, m.Time)
	if len(m.Header) > 0 {
		buf = append(buf, `,"headers":`...)
		buf = appendHeader(buf, m.Header)
	}
	buf = appendData(buf, m.Data, json.Valid(m.Data))
	buf = append(buf, '}')
	return buf, buf[start:], nil
}

// eventType is what all events are called: the relay does not know what its messages are about.
const eventType = "com.github.natsrelay.message"

// encodeCloudEvent makes an event in the JSON format of CloudEvents 1.0
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md). Its source is the relay and the route
// that have given the message its id, or took it first with the id that it had.
func encodeCloudEvent(buf []byte, m *relay.Message) (rest, piece []byte, err error) {
	start := len(buf)
	contentType, isJSON := eventData(m)
	buf = append(buf, `{"specversion":"1.0","type":"`+eventType+`","source":`...)
	buf = appendString(buf, eventSource(m))
	for _, attribute := range [...]struct{ name, value string }{
		{"id", m.ID}, {"subject", m.Subject}, {"datacontenttype", contentType},
		// Extension "distributed tracing".
		{"traceparent", headerValue(m.Header, "Traceparent")}, {"tracestate", headerValue(m.Header, "Tracestate")},
	} {
		if attribute.value != "" {
			buf = append(buf, `,"`+attribute.name+`":`...)
			buf = appendString(buf, attribute.value)
		}
	}
	buf = append(buf, `,"time":`...)
	buf = appendTime(buf, m.Time)
	buf = appendData(buf, m.Data, isJSON)
	buf = append(buf, '}')
	return buf, buf[start:], nil
}

// encodeSingleEvent makes an event that is a body by itself. It has memory of its own: net/http may still read it when the endpoint has answered,
// and buf has been used again.
func encodeSingleEvent(buf []byte, m *relay.Message) (rest, piece []byte, err error) {
	_, piece, err = encodeCloudEvent(make([]byte, 0, 512+2*len(m.Data)), m)
	return buf, piece, err
}

// eventData returns the type of a payload, and whether it goes into an event as JSON. What is JSON by chance but says that it is
// something else does not: a reader would take the string "a" for an a (json-format, section 3.1.1).
func eventData(m *relay.Message) (contentType string, isJSON bool) {
	contentType = headerValue(m.Header, "Content-Type")
	isJSON = (contentType == "" || isJSONType(contentType)) && json.Valid(m.Data)
	switch {
	case contentType != "":
		return contentType, isJSON
	case isJSON:
		return "application/json", true
	}
	return "application/octet-stream", false
}

// isJSONType takes for JSON what the official SDK for Go (v2.16) does: neither application/*+json nor other letter case. Its users
// would get such data damaged, or not at all.
func isJSONType(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	return t == "application/json" || t == "text/json"
}

func eventSource(m *relay.Message) string {
	if via := m.Header[relay.HeaderVia]; len(via) > 0 {
		return "/natsrelay/" + via[0]
	}
	return "/natsrelay"
}

// headerValue returns the first value of a header that is an HTTP header by nature, so its letter case does not matter.
func headerValue(h relay.Header, name string) string {
	if v := h.Get(name); v != "" {
		return v
	}
	for k := range h {
		if strings.EqualFold(k, name) {
			return h.Get(k)
		}
	}
	return ""
}

// appendData appends the member data or data_base64, on one line.
func appendData(buf, data []byte, isJSON bool) []byte {
	if !isJSON {
		buf = append(buf, `,"data_base64":"`...)
		buf = base64.StdEncoding.AppendEncode(buf, data)
		return append(buf, '"')
	}
	buf = append(buf, `,"data":`...)
	if bytes.ContainsAny(data, "\r\n") {
		buf, _ = appendCompact(buf, data) // cannot fail, it is valid
		return buf
	}
	return append(buf, data...)
}

// appendHeader appends the headers, in an order that is always the same.
func appendHeader(buf []byte, h relay.Header) []byte {
	buf = append(buf, '{')
	for i, k := range slices.Sorted(maps.Keys(h)) {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = appendString(buf, k)
		buf = append(buf, ':', '[')
		for j, v := range h[k] {
			if j > 0 {
				buf = append(buf, ',')
			}
			buf = appendString(buf, v)
		}
		buf = append(buf, ']')
	}
	return append(buf, '}')
}

func appendTime(buf []byte, t time.Time) []byte {
	buf = append(buf, '"')
	buf = t.UTC().AppendFormat(buf, time.RFC3339Nano)
	return append(buf, '"')
}

// appendString appends s as a JSON string.
func appendString(buf []byte, s string) []byte {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		quoted, _ := json.Marshal(s) // cannot fail; what is no UTF-8 is replaced
		return append(buf, quoted...)
	}
	buf = append(buf, '"')
	buf = append(buf, s...)
	return append(buf, '"')
}
