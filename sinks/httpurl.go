package sinks

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
)

// A target says which URL a message goes to.
type target struct {
	origin   string // scheme and host
	fixed    *url.URL
	template config.URLTemplate // nil: fixed is the URL of all messages
}

func newTarget(s string) (target, error) {
	// What is wrong with a URL is not told: it may hold a secret.
	template, problem := config.ParseURLTemplate(s)
	if problem != "" {
		return target{}, fmt.Errorf("url: %s", problem)
	}
	u, err := url.Parse(s)
	if err != nil {
		return target{}, errors.New("the url cannot be parsed")
	}
	t := target{origin: u.Scheme + "://" + u.Host, fixed: u}
	if !template.IsFixed() {
		t.template = template
	}
	return t, nil
}

// url returns the URL for a message, "" if it is that of all messages. A message that lacks what the URL is made of is not sent
// to some other URL; that is an error, and the message's fault.
func (t target) url(m *relay.Message) (string, error) {
	if t.template == nil {
		return "", nil
	}
	var u strings.Builder
	for _, part := range t.template {
		if part.Kind == config.URLLiteral {
			u.WriteString(part.Text)
			continue
		}
		value, err := urlValue(part, m)
		if err != nil {
			return "", err
		}
		if part.Query {
			u.WriteString(url.QueryEscape(value))
		} else {
			u.WriteString(url.PathEscape(value))
		}
	}
	return u.String(), nil
}

// urlValue returns what stands for a part of a template.
func urlValue(part config.URLPart, m *relay.Message) (value string, err error) {
	var what string
	switch part.Kind {
	case config.URLSubject:
		what, value = "subject", m.Subject
	case config.URLToken:
		what, value = fmt.Sprintf("token(%d)", part.Token), token(m.Subject, part.Token)
	case config.URLHeader:
		what, value = "header("+part.Text+")", m.Header.Get(part.Text)
	}
	switch {
	case value == "":
		return "", fmt.Errorf("the url needs %s, which the message does not have", what)
	case !part.Query && strings.Trim(value, ".") == "":
		// Escaping leaves dots alone, and servers take ".." for the folder above.
		return "", fmt.Errorf("the url needs %s, and dots alone would lead to another path", what)
	}
	return value, nil
}

// token returns the nth token of a subject, counted from 1, or "".
func token(subject string, n int) string {
	for ; n > 1; n-- {
		_, subject, _ = strings.Cut(subject, ".")
	}
	first, _, _ := strings.Cut(subject, ".")
	return first
}
