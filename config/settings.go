package config

import (
	"maps"
	"slices"
)

// RouteSettings is all that a route is made from: two routes with deeply equal settings are the same. It holds secrets.
type RouteSettings struct {
	Route Route
	NATS  map[string]NATS // the connections that it uses
}

// RouteSettings returns the settings of one of the configuration's routes.
func (c *Config) RouteSettings(r *Route) RouteSettings {
	s := RouteSettings{Route: *r, NATS: map[string]NATS{}}
	for _, name := range r.connections() {
		s.NATS[name] = *c.NATS[name]
	}
	return s
}

// IntakeSettings returns all that the source of a route is made from, if it is to stay connected while the rest of the route changes:
// core NATS keeps nothing meanwhile. nil: it is not, since upstream keeps what is not taken.
func (c *Config) IntakeSettings(r *Route) any {
	if r.Source.Core == nil {
		return nil
	}
	return RouteSettings{Route: Route{Source: r.Source}, NATS: map[string]NATS{r.Source.Core.NATS: *c.NATS[r.Source.Core.NATS]}}
}

// connections returns the names of the [nats.NAME] tables that the route refers to.
func (r *Route) connections() []string {
	names := map[string]bool{r.DeadLetter.NATS: true}
	if r.Source.Core != nil {
		names[r.Source.Core.NATS] = true
	}
	if r.Source.JetStream != nil {
		names[r.Source.JetStream.NATS] = true
	}
	if r.Sink.NATS != nil {
		names[r.Sink.NATS.NATS] = true
	}
	delete(names, "")
	return slices.Sorted(maps.Keys(names))
}

// KeepFixed takes over from the configuration that runs what cannot change without a restart, and returns the keys that c had
// differently.
func (c *Config) KeepFixed(running *Config) (differing []string) {
	keep(&differing, "state_dir", &c.StateDir, running.StateDir)
	keep(&differing, "instance", &c.Instance, running.Instance)
	keep(&differing, "log.format", &c.Log.Format, running.Log.Format)
	keep(&differing, "admin.listen", &c.Admin.Listen, running.Admin.Listen)
	keep(&differing, "admin.token", &c.Admin.Token, running.Admin.Token)
	return differing
}

func keep[T comparable](differing *[]string, key string, now *T, running T) {
	if *now != running {
		*differing = append(*differing, key)
		*now = running
	}
}
