package config

import (
	"fmt"
	"io"
)

// A Secret is a string that formatting, logging and encoding never show; only Reveal does.
//
// Keep it in exported fields: package fmt cannot call the methods of what is in an unexported one, and prints it as it is.
type Secret string

const redacted = "[secret]"

// Reveal returns the secret itself. Pass it on to who needs it, never to a log or an error.
func (s Secret) Reveal() string { return string(s) }

// String returns a placeholder, or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format keeps every verb from showing the secret. String alone does not: fmt answers a wrong verb such as %d with the value.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// GoString keeps those who print Go syntax without fmt from showing the secret.
func (s Secret) GoString() string { return s.String() }

// MarshalText keeps encoders from showing the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// The structs that hold secrets print themselves as well: when fmt is given a verb that does not suit a struct, such as %s
// for a Config, it prints what is behind a pointer without asking the methods of the fields.

// Format prints the connection with its secrets hidden, whatever the verb.
func (n NATS) Format(f fmt.State, _ rune) {
	type plain NATS
	fmt.Fprintf(f, fmt.FormatString(f, 'v'), plain(n))
}

// String returns the sink with its secrets hidden. (It has a field Format, so it cannot have the method.)
func (s HTTPSink) String() string {
	type plain HTTPSink
	s.URL = s.Endpoint
	return fmt.Sprintf("%+v", plain(s))
}

// GoString keeps %#v from showing the URL.
func (s HTTPSink) GoString() string { return s.String() }
