package sinks

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/natsrelay/natsrelay/relay"
)

// maxReply bounds the body of a response that is to be an answer. NATS servers take 1 MiB by default and advise against more than 8.
const maxReply = 8 << 20

// headerStatus is the status of a response, in an answer. It is no header named Status: clients take that for the server's own word.
const headerStatus = "Natsrelay-Status"

// Respond implements relay.Responder: the answer is the response, whatever its status. One of 400 and above is a service error
// besides (NATS ADR-32).
func (h *HTTP) Respond(ctx context.Context, m *relay.Message) (relay.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	res, err := h.request(ctx, m)
	if err != nil {
		return relay.Answer{}, fmt.Errorf("%s: %w", h.endpoint, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	if err != nil {
		return relay.Answer{}, fmt.Errorf("%s: read the response: %w", h.endpoint, err)
	}
	if len(body) > maxReply {
		return relay.Answer{}, fmt.Errorf("%s: %w", h.endpoint, &relay.AnswerFault{Code: 502, Text: "response too large"})
	}
	return answer(res, body), nil
}

// request sends the message as Deliver does, and returns the response.
func (h *HTTP) request(ctx context.Context, m *relay.Message) (*http.Response, error) {
	run := []piece{{id: m.ID}}
	err := h.address(&run[0], m)
	if err == nil {
		_, run[0].data, err = h.format.encode(nil, m)
	}
	if err != nil {
		return nil, &relay.AnswerFault{Code: 400, Text: "request cannot be sent over HTTP"}
	}
	res, _, err := h.exchange(ctx, run)
	return res, err
}

// answer makes an answer of a response. Headers of the connection stay behind, and so do those that mean something to NATS clients:
// an endpoint must not be able to say "no responders" in the server's name.
func answer(res *http.Response, body []byte) relay.Answer {
	a := relay.Answer{Header: relay.Header{}, Data: body}
	for key, values := range res.Header {
		if !hopByHop[key] && key != "Status" && !strings.HasPrefix(key, "Nats-") && !strings.HasPrefix(key, "Natsrelay-") {
			a.Header[key] = values
		}
	}
	a.Header[headerStatus] = []string{strconv.Itoa(res.StatusCode)}
	if res.StatusCode >= 400 {
		a.Fault = &relay.AnswerFault{Code: res.StatusCode, Text: statusText(res.StatusCode)}
	}
	return a
}

func statusText(code int) string {
	if text := http.StatusText(code); text != "" {
		return text
	}
	return "status " + strconv.Itoa(code)
}
