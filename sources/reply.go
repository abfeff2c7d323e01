package sources

import (
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/relay"
)

// Headers of an answer that says that the request failed (NATS ADR-32).
const (
	headerServiceError     = "Nats-Service-Error"
	headerServiceErrorCode = "Nats-Service-Error-Code"
)

// responder returns what answers the request m, nil if m is none: nobody waits for a message without a reply subject, and who waits
// at a subject of the server's own, above all $JS.ACK, would take any answer for an acknowledgement.
func responder(nc *nats.Conn, m *nats.Msg) func(relay.Answer) error {
	reply := m.Reply
	if reply == "" || strings.HasPrefix(reply, "$") {
		return nil
	}
	return func(a relay.Answer) error {
		err := nc.PublishMsg(answerMsg(reply, a))
		if errors.Is(err, nats.ErrMaxPayload) {
			tooLarge := relay.Answer{Fault: &relay.AnswerFault{Code: 502, Text: "response too large"}}
			_ = nc.PublishMsg(answerMsg(reply, tooLarge)) // the first error is what is wrong
		}
		return err
	}
}

func answerMsg(subject string, a relay.Answer) *nats.Msg {
	m := nats.NewMsg(subject)
	for key, values := range a.Header {
		m.Header[key] = values
	}
	if a.Fault != nil {
		m.Header.Set(headerServiceError, a.Fault.Text)
		m.Header.Set(headerServiceErrorCode, strconv.Itoa(a.Fault.Code))
	}
	m.Data = a.Data
	return m
}
