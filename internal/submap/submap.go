// Package submap maps subjects as a NATS server does: https://docs.nats.io/nats-concepts/subject_mapping.
// It is a thin layer over nats-server's own transformer, so that both always mean the same.
package submap

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/nats-io/nats-server/v2/server"
)

// A Mapping maps the subjects of a source. It is safe for concurrent use.
type Mapping struct {
	transforms []server.SubjectTransformer // in the order of the sources
	dest       string
}

// New makes the mapping from what sources match to dest. Each of the sources must suit dest: {{wildcard(2)}} needs two wildcards
// in each, and dest ends in > if, and only if, they do.
func New(sources []string, dest string) (*Mapping, error) {
	if err := check(dest); err != nil {
		return nil, err
	}
	m := &Mapping{dest: dest}
	for _, source := range sources {
		if strings.HasSuffix("."+source, ".>") != strings.HasSuffix("."+dest, ".>") {
			return nil, fmt.Errorf("does not suit the subject %q: both must end in >, or neither", source)
		}
		t, err := server.NewSubjectTransform(source, dest)
		if err != nil {
			return nil, fmt.Errorf("does not suit the subject %q: %w", source, err)
		}
		m.transforms = append(m.transforms, t)
	}
	return m, nil
}

var (
	function = regexp.MustCompile(`^\{\{\s*([A-Za-z]+)\s*\((.*)\)\s*\}\}$`)
	dollar   = regexp.MustCompile(`^\$[0-9]+$`)
)

// check refuses what the server's transformer takes and then does something else with than anybody could mean.
func check(dest string) error {
	for token := range strings.SplitSeq(dest, ".") {
		m := function.FindStringSubmatch(token)
		switch {
		case token == "":
			return errors.New("has an empty token")
		case token == "*":
			return errors.New("has a *; use {{wildcard(1)}} for what the first * of the source matched")
		case m == nil && strings.Contains(token, "{{"):
			return fmt.Errorf("%s: a function must be a token of its own, {{name(arguments)}}, without dots in it", token)
		case m == nil && strings.ContainsFunc(token, isBlankOrControl):
			return errors.New("has a space or a control character")
		case m != nil && !fromOne(strings.ToLower(m[1]), m[2]), dollar.MatchString(token) && !positive(token[1:]):
			return fmt.Errorf("%s: numbers start at 1", token)
		}
	}
	return nil
}

// fromOne reports whether the numbers among a function's arguments are positive. The transformer takes {{wildcard(0)}} for
// the first token of the subject, whatever it is.
func fromOne(name, args string) bool {
	list := strings.Split(args, ",")
	if name == "split" {
		list = list[:1] // the second is what to split at
	}
	return !slices.ContainsFunc(list, func(arg string) bool { return !positive(strings.TrimSpace(arg)) })
}

// positive reports whether s is no number, which is the transformer's to refuse, or one from 1 up.
func positive(s string) bool {
	n, err := strconv.Atoi(s)
	return err != nil || n > 0
}

func isBlankOrControl(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// Map returns what the subject is mapped to: by the first of the sources that matches it.
func (m *Mapping) Map(subject string) (string, error) {
	for _, t := range m.transforms {
		mapped, err := t.Match(subject)
		if errors.Is(err, server.ErrNoTransforms) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("map subject %q to %s: %w", subject, m.dest, err)
		}
		if !literal(mapped) {
			return "", fmt.Errorf("map subject %q to %s: the result %q is not a subject", subject, m.dest, mapped)
		}
		return mapped, nil
	}
	return "", fmt.Errorf("map subject %q to %s: no subject of the source matches it", subject, m.dest)
}

// literal reports whether a message can be published to s.
func literal(s string) bool {
	for token := range strings.SplitSeq(s, ".") {
		if token == "" || token == "*" || token == ">" {
			return false
		}
	}
	return !strings.ContainsFunc(s, isBlankOrControl)
}

// Pattern returns a subject with wildcards that matches whatever the destination can become.
func Pattern(dest string) string {
	tokens := strings.Split(dest, ".")
	for i, token := range tokens {
		m := function.FindStringSubmatch(token)
		switch {
		case dollar.MatchString(token):
			tokens[i] = "*"
		case m == nil:
		case strings.HasPrefix(strings.ToLower(m[1]), "split"), strings.HasPrefix(strings.ToLower(m[1]), "slice"):
			tokens[i] = ">" // one token or more
			return strings.Join(tokens[:i+1], ".")
		default:
			tokens[i] = "*"
		}
	}
	return strings.Join(tokens, ".")
}
