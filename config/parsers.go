package config

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A parser reads one value. If it cannot, it reports the problem and returns false.
type parser[T any] func(b *binder, v value) (T, bool)

// anyText reads a string, expanded, which may be empty.
func anyText(b *binder, v value) (string, bool) {
	s, ok := v.raw.(string)
	if !ok {
		b.problem(v, "must be a string, not %s", v.kind())
		return "", false
	}
	return b.expand(v, s)
}

// text reads a string, expanded, which must not be empty.
func text(b *binder, v value) (string, bool) {
	s, ok := anyText(b, v)
	if ok && s == "" {
		b.problem(v, "must not be empty")
		return "", false
	}
	return s, ok
}

// textThat reads a string for which check finds no problem. The problem must not quote the string, for it is expanded.
func textThat(check func(s string) (problem string)) parser[string] {
	return func(b *binder, v value) (string, bool) {
		s, ok := text(b, v)
		if !ok {
			return "", false
		}
		if problem := check(s); problem != "" {
			b.problem(v, "%s", problem)
			return "", false
		}
		return s, true
	}
}

// secret reads a string that no error ever quotes.
func secret(b *binder, v value) (Secret, bool) {
	s, ok := text(b, v)
	return Secret(s), ok
}

// file reads the path of a file, and makes sure that it can be read.
func file(b *binder, v value) (string, bool) {
	path, ok := text(b, v)
	if !ok {
		return "", false
	}
	if _, err := b.env.read(path); err != nil {
		b.problem(v, "%s cannot be read: %s", v.quote(), why(err))
		return "", false
	}
	return path, true
}

// oneOf reads one of some words, which are given with spaces between them.
func oneOf(words string) parser[string] {
	allowed := strings.Fields(words)
	return func(b *binder, v value) (string, bool) {
		s, ok := text(b, v)
		switch {
		case !ok:
			return "", false
		case !slices.Contains(allowed, s):
			// The hint shows nothing of s but a word that is no secret.
			b.problem(v, `%s is not one of "%s"%s`, v.quote(), strings.Join(allowed, `", "`), didYouMean(s, allowed))
			return "", false
		}
		return s, true
	}
}

// boolean reads true or false.
func boolean(b *binder, v value) (bool, bool) {
	x, ok := v.raw.(bool)
	if !ok {
		b.problem(v, "must be true or false, not %s", v.kind())
	}
	return x, ok
}

// integer reads an integer from low to high.
func integer[T int | int64](low, high T) parser[T] {
	return func(b *binder, v value) (T, bool) {
		n, ok := v.raw.(int64)
		if !ok {
			b.problem(v, "must be an integer, not %s", v.kind())
			return 0, false
		}
		if n < int64(low) || n > int64(high) {
			b.problem(v, "must be from %d to %d, not %d", low, high, n)
			return 0, false
		}
		return T(n), true
	}
}

// forever bounds durations that may be as long as one likes.
const forever = time.Duration(math.MaxInt64)

// duration reads a duration with its unit, from low to high.
func duration(low, high time.Duration) parser[time.Duration] {
	return func(b *binder, v value) (time.Duration, bool) {
		d, ok := anyDuration(b, v)
		switch {
		case !ok:
			return 0, false
		case d < low && high == forever:
			b.problem(v, "must be %s or more, not %s", formatDuration(low), v.quote())
			return 0, false
		case d < low || d > high:
			b.problem(v, "must be from %s to %s, not %s", formatDuration(low), formatDuration(high), v.quote())
			return 0, false
		}
		return d, true
	}
}

// anyDuration reads a duration with its unit. TOML has no type for durations, and a bare 5 would be five of who knows what.
func anyDuration(b *binder, v value) (time.Duration, bool) {
	switch n := v.raw.(type) {
	case string:
	case int64, float64:
		example := fmt.Sprint(n) + "s"
		if _, err := time.ParseDuration(example); err != nil {
			example = "5s"
		}
		b.problem(v, "needs a unit, for example %q", example)
		return 0, false
	default:
		b.problem(v, "must be a duration such as \"10s\", not %s", v.kind())
		return 0, false
	}
	s, ok := text(b, v)
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	if err != nil && unitless.MatchString(s) {
		b.problem(v, "needs a unit, for example \"5s\"")
		return 0, false
	}
	if err != nil {
		b.problem(v, "%s is not a duration such as \"500ms\", \"10s\" or \"2h\"", v.quote())
		return 0, false
	}
	return d, true
}

var unitless = regexp.MustCompile(`^[0-9.]+$`)

// formatDuration writes 1h instead of 1h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// size reads a size of at least low bytes.
func size(low int64) parser[int64] {
	return func(b *binder, v value) (int64, bool) {
		n, ok := byteCount(b, v)
		if ok && n < low {
			b.problem(v, "must be %s or more, not %s", formatSize(low), v.quote())
			return 0, false
		}
		return n, ok
	}
}

// zeroOrSize reads a size of at least low bytes, or 0.
func zeroOrSize(low int64) parser[int64] {
	return func(b *binder, v value) (int64, bool) {
		n, ok := byteCount(b, v)
		if ok && n != 0 && n < low {
			b.problem(v, "must be 0, or %s or more, not %s", formatSize(low), v.quote())
			return 0, false
		}
		return n, ok
	}
}

// byteCount reads a size: a string with a unit, or a whole number of bytes.
func byteCount(b *binder, v value) (int64, bool) {
	switch n := v.raw.(type) {
	case int64:
		return n, true
	case string:
		s, ok := text(b, v)
		if !ok {
			return 0, false
		}
		if n, ok := parseSize(s); ok {
			return n, true
		}
		b.problem(v, `%s is not a size: write a whole number of bytes, or one with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB such as "64MiB"`, v.quote())
	default:
		b.problem(v, "must be a size such as \"64MiB\" or a number of bytes, not %s", v.kind())
	}
	return 0, false
}

// list reads an array of one or more different things.
func list[T comparable](item parser[T]) parser[[]T] {
	return func(b *binder, v value) ([]T, bool) {
		elems, ok := v.elems()
		if !ok {
			b.problem(v, "must be an array, not %s", v.kind())
			return nil, false
		}
		if len(elems) == 0 {
			b.problem(v, "must have at least one element")
			return nil, false
		}
		items := make([]T, 0, len(elems))
		for _, e := range elems {
			x, good := item(b, e)
			if good && slices.Contains(items, x) {
				b.problem(e, "is in the array already")
				good = false
			}
			items = append(items, x)
			ok = ok && good
		}
		return items, ok
	}
}
