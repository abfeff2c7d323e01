package supervise

import (
	"fmt"
	"strings"
	"time"

	"github.com/natsrelay/natsrelay/internal/human"
	"github.com/natsrelay/natsrelay/relay"
)

// settled reports whether the route has come up, or is known not to for the time being.
func settled(r relay.RouteStatus) bool { return r.Err != nil || r.Stats.State != relay.StateStarting }

// stalled returns the first route that makes no progress without a reason to it, and in what words.
func stalled(routes []relay.RouteStatus) (route, why string) {
	for _, r := range routes {
		if r.Stats.Stalled != "" {
			return r.Name, r.Stats.Stalled
		}
	}
	return "", ""
}

// describe sums the routes up in one line: "3 routes: 2 flowing, 1 spilling, 1.2 GiB, oldest 14 min; web: connection refused".
func describe(routes []relay.RouteStatus) string {
	parts := states(routes)
	var bytes int64
	var oldest time.Duration
	for _, r := range routes {
		bytes += waiting(r.Stats)
		oldest = max(oldest, r.Stats.OldestAge)
	}
	// What is only passing through is not a backlog.
	if oldest >= time.Second {
		parts = append(parts, human.Bytes(bytes), "oldest "+age(oldest))
	}
	text := "1 route"
	if len(routes) != 1 {
		text = fmt.Sprintf("%d routes", len(routes))
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	if trouble := firstTrouble(routes); trouble != "" {
		text += "; " + trouble
	}
	return text
}

// states counts the routes by state, the most pleasant first.
func states(routes []relay.RouteStatus) []string {
	n := map[relay.State]int{}
	for _, r := range routes {
		n[r.Stats.State]++
	}
	var parts []string
	order := relay.States()
	for i := range order {
		state := order[len(order)-1-i]
		if n[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[state], state))
		}
	}
	return parts
}

// waiting returns how much of a route waits to be delivered. What is on disk may be in memory, too.
func waiting(s relay.RouteStats) int64 {
	if s.DiskMessages > 0 {
		return s.DiskBytes
	}
	return s.MemoryBytes
}

// firstTrouble says what is wrong with the first route that something is wrong with.
func firstTrouble(routes []relay.RouteStatus) string {
	for _, r := range routes {
		switch s := r.Stats; {
		case r.Err != nil:
			return fmt.Sprintf("%s cannot be opened: %v", r.Name, r.Err)
		case s.Stalled != "":
			return fmt.Sprintf("%s has stalled: %s", r.Name, s.Stalled)
		case s.DiskTrouble != nil:
			return fmt.Sprintf("%s cannot write to disk: %v", r.Name, s.DiskTrouble)
		case s.SinkTrouble != nil:
			return fmt.Sprintf("%s: %v", r.Name, s.SinkTrouble)
		case s.SourceTrouble != nil:
			return fmt.Sprintf("%s: %v", r.Name, s.SourceTrouble)
		}
	}
	return ""
}

// age formats a duration for people, in the largest unit that it has two of: "14 min".
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

// oneLine makes a text fit for STATUS=, of which `systemctl status` shows the beginning.
func oneLine(s string) string {
	const most = 400
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
