// Package bench measures the relay end to end, beside a bare loop in the same run: a Go program on the same client
// libraries that moves the same messages with no buffer, no confirmation and no retry. The bare loop is the ceiling; what counts is
// the ratio, because it does not depend on how busy the machine is. README.md has the commands and the figures.
package bench
