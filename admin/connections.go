package admin

import (
	"cmp"
	"maps"
	"slices"
)

// merge makes one of all connections of a name: up if all are, with the sum of their counts. They are in the order of their names.
func merge(all []Connection) []Connection {
	byName := map[string]*Connection{}
	for _, c := range all {
		m := byName[c.Name]
		if m == nil {
			m = &Connection{Name: c.Name, Connected: true, Errors: map[string]uint64{}}
			byName[c.Name] = m
		}
		m.Connected = m.Connected && c.Connected
		m.Reconnects += c.Reconnects
		m.Failure = cmp.Or(m.Failure, c.Failure)
		for kind, n := range c.Errors {
			m.Errors[kind] += n
		}
	}
	merged := make([]Connection, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		merged = append(merged, *byName[name])
	}
	return merged
}
