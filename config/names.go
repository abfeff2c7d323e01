package config

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/natsrelay/natsrelay/internal/subject"
)

// The functions here called badX say what is wrong with an X, "" if nothing. They do not quote it: it may be expanded.

var routeName = regexp.MustCompile(`^[a-z0-9_-]+$`)

// IsRouteName reports whether a route may have this name, which is that of its folders, too.
func IsRouteName(name string) bool { return badRouteName(name) == "" }

// badRouteName: the name of a route is that of its folder on disk, and a label of its metrics.
func badRouteName(name string) string {
	switch {
	case !routeName.MatchString(name):
		return "the name of a route is made of a-z, 0-9, _ and -"
	case len(name) > 64:
		return "the name of a route has at most 64 characters"
	}
	return ""
}

func badConnectionName(name string) string {
	if name == "" {
		return "the name of a connection must not be empty"
	}
	return ""
}

func isInstanceChar(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
}

// badInstance: the instance travels in the header Natsrelay-Via, as INSTANCE/ROUTE.
func badInstance(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !isInstanceChar(r) }) {
		return "must be made of letters, digits, . _ and -"
	}
	return ""
}

// badSubject checks a subject to subscribe to.
func badSubject(s string) string {
	if strings.ContainsFunc(s, isBlankOrControl) {
		return "is not a NATS subject: it has a space or a control character"
	}
	tokens := strings.Split(s, ".")
	for i, token := range tokens {
		switch {
		case token == "":
			return "is not a NATS subject: it has an empty token"
		case token == ">" && i < len(tokens)-1:
			return "is not a NATS subject: > may only be the last token"
		case len(token) > 1 && strings.ContainsAny(token, "*>"):
			return "is not a NATS subject: a wildcard must be a token of its own"
		}
	}
	return ""
}

// subjects reads the subjects of a core source. Each is a subscription of its own, so what two of them match would come twice.
func subjects(b *binder, v value) ([]string, bool) {
	all, ok := list(textThat(badSubject))(b, v)
	elems, _ := v.elems()
	for i, e := range elems {
		for j, earlier := range all[:i] {
			if all[i] != earlier && subject.Overlap(all[i], earlier) {
				b.problem(e, "overlaps element %d: a message that both match would come twice", j)
				ok = false
			}
		}
	}
	return all, ok
}

func isBlankOrControl(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// queueGroup reads the name of a queue group; "" is a plain subscription.
func queueGroup(b *binder, v value) (string, bool) {
	s, ok := anyText(b, v)
	if ok && strings.ContainsFunc(s, isBlankOrControl) {
		b.problem(v, "must not have spaces or control characters")
		return "", false
	}
	return s, ok
}

// domain reads the name of a JetStream domain, a token of the subjects of its API; "" is the server's own.
func domain(b *binder, v value) (string, bool) {
	s, ok := anyText(b, v)
	if ok && s != "" && (badSubject(s) != "" || strings.ContainsAny(s, ".*>")) {
		b.problem(v, "is not the name of a JetStream domain: it must be one token, without blanks, dots and wildcards")
		return "", false
	}
	return s, ok
}

// badInboxPrefix checks what the subjects of replies begin with.
func badInboxPrefix(s string) string {
	if badSubject(s) != "" || strings.ContainsAny(s, "*>") {
		return "is not a prefix of subjects: it must be one or more tokens without wildcards, such as \"_INBOX\""
	}
	return ""
}

// connection reads the name of a [nats.NAME] table.
func connection(b *binder, v value) (string, bool) {
	name, ok := text(b, v)
	if ok && !slices.Contains(b.connections, name) {
		b.problem(v, "there is no [nats.NAME] table with the name %s%s", v.quote(), didYouMean(name, b.connections))
		return "", false
	}
	return name, ok
}
