package sinks

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/natsrelay/natsrelay/config"
)

const (
	// shownBody is how much of a failed response's body goes into its error.
	shownBody = 200
	// shownError is how much of an error of net/http is shown: it may quote what the endpoint has sent.
	shownError = 500
	// masked stands for a secret.
	masked = "[secret]"
	// shortestSecret is what is taken for a secret. Headers hold other things, too: a 1 masked everywhere would help nobody.
	shortestSecret = 4
)

// A mask takes secrets out of text that others have written: an endpoint may answer with what it was sent.
type mask struct {
	secrets []string // longest first, so that one that is part of another does not leave the rest of it
	longest int
}

// newMask knows the secrets of a configuration.
func newMask(cfg *config.HTTPSink) mask {
	var m mask
	for _, v := range cfg.Headers {
		m.addCredential(v.Reveal())
	}
	m.add(cfg.BearerToken.Reveal())
	if cfg.Basic != nil {
		m.add(cfg.Basic.Password.Reveal())
		m.add(basicCredentials(cfg.Basic))
	}
	if o := cfg.OAuth2; o != nil {
		m.add(o.ClientSecret.Reveal())
		// And as they are sent (RFC 6749, section 2.3.1).
		id, secret := url.QueryEscape(o.ClientID), url.QueryEscape(o.ClientSecret.Reveal())
		m.add(secret)
		m.add(basicCredentials(&config.HTTPBasic{User: id, Password: config.Secret(secret)}))
	}
	for _, s := range cfg.SigningSecrets {
		m.add(s.Reveal())
		m.add(strings.TrimPrefix(s.Reveal(), "whsec_"))
	}
	m.addUser(cfg.Proxy.Reveal())
	m.addURL(cfg)
	slices.SortFunc(m.secrets, func(a, b string) int { return len(b) - len(a) })
	return m
}

func (m *mask) add(secret string) {
	if len(secret) >= shortestSecret {
		m.secrets = append(m.secrets, secret)
		m.longest = max(m.longest, len(secret))
	}
}

// addCredential adds the value of a header, and what follows a scheme such as Bearer in it.
func (m *mask) addCredential(value string) {
	m.add(value)
	_, credential, _ := strings.Cut(value, " ")
	m.add(credential)
}

// addUser adds the password of a URL, and what it is sent as.
func (m *mask) addUser(s string) {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return
	}
	password, _ := u.User.Password()
	m.add(password)
	m.add(basicCredentials(&config.HTTPBasic{User: u.User.Username(), Password: config.Secret(password)}))
}

// addURL adds what a URL may hold in secret: its query, and its path if the file has not got it in plain text.
func (m *mask) addURL(cfg *config.HTTPSink) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return
	}
	m.add(u.RawQuery)
	for _, values := range u.Query() {
		for _, v := range values {
			m.add(v)
		}
	}
	if strings.Contains(cfg.Endpoint, "${") {
		m.add(u.Path)
		m.add(u.EscapedPath())
	}
}

// text replaces the secrets in s; extra is one besides the configured ones, here and below.
func (m *mask) text(s, extra string) string {
	if len(extra) >= shortestSecret {
		s = strings.ReplaceAll(s, extra, masked)
	}
	for _, secret := range m.secrets {
		s = strings.ReplaceAll(s, secret, masked)
	}
	return s
}

// line is text on one line, without what is no UTF-8.
func (m *mask) line(s, extra string) string {
	s = m.text(strings.ToValidUTF8(s, "?"), extra)
	return m.text(strings.Join(strings.Fields(s), " "), extra)
}

// needs returns how much of a text excerpt must see to show the beginning of it.
func (m *mask) needs(extra string) int { return shownBody + max(m.longest, len(extra)) }

// excerpt returns what may be shown of a text: its beginning, on one line. more says that the text goes on after begin; a secret may
// then be cut in two by its end, so as much as that may be is left off.
func (m *mask) excerpt(begin []byte, more bool, extra string) string {
	s := m.text(string(begin), extra)
	if more {
		s = s[:max(0, len(s)-max(m.longest, len(extra)))]
	}
	s = m.line(s, extra)
	if len(s) > shownBody {
		s, more = strings.ToValidUTF8(s[:shownBody], ""), true
	}
	if more {
		s += "…"
	}
	return s
}

// err returns err, or one with less in its text, if that has a secret in it or is very long.
func (m *mask) err(err error, extra string) error {
	shown := m.line(err.Error(), extra)
	switch {
	case len(shown) > shownError:
		return errors.New(strings.ToValidUTF8(shown[:shownError], "") + "…")
	case strings.Contains(shown, masked):
		return errors.New(shown)
	}
	return err
}
