// Package subject compares subjects of NATS: tokens with dots between them, where * stands for one token, and > at the end for one or more.
package subject

import "strings"

// Covers reports whether the pattern matches all that the other one matches; one without wildcards matches itself.
func Covers(pattern, other string) bool {
	ps, os := strings.Split(pattern, "."), strings.Split(other, ".")
	for i, p := range ps {
		switch {
		case i >= len(os):
			return false
		case p == ">":
			return true
		case os[i] == ">" || p != "*" && p != os[i]:
			return false
		}
	}
	return len(ps) == len(os)
}

// Overlap reports whether there is a subject that both patterns match. "", which is no subject, matches none.
func Overlap(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		switch {
		case as[i] == ">" || bs[i] == ">":
			return true
		case as[i] != "*" && bs[i] != "*" && as[i] != bs[i]:
			return false
		}
	}
	return len(as) == len(bs)
}
