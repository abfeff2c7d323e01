package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every field of a route that names a connection is among its connections: a reload must not overlook that one of them has changed.
func TestRouteConnections(t *testing.T) {
	var r Route
	var want []string
	nameConnections(reflect.ValueOf(&r).Elem(), func() string {
		want = append(want, fmt.Sprint("connection", len(want)))
		return want[len(want)-1]
	})
	if len(want) < 3 {
		t.Fatalf("found only %d fields called NATS", len(want))
	}
	if diff := cmp.Diff(want, r.connections()); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
}

// nameConnections sets every string field called NATS in v, and makes whatever v points to.
func nameConnections(v reflect.Value, next func() string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		nameConnections(v.Elem(), next)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); v.Type().Field(i).Name == "NATS" && f.Kind() == reflect.String {
				f.SetString(next())
			} else if f.CanSet() {
				nameConnections(f, next)
			}
		}
	}
}

// A route is the same as long as nothing changes that it is made from.
func TestRouteSettings(t *testing.T) {
	settings := func(text string, env ...string) RouteSettings {
		t.Helper()
		c := mustParse(t, text, env...)
		return c.RouteSettings(c.Routes[0])
	}
	withSecret := minimal + `bearer_token = "${env:INGEST_TOKEN}"`
	for _, c := range []struct {
		name          string
		before, after RouteSettings
		same          bool
	}{
		{"nothing", settings(minimal), settings(minimal), true},
		{"a connection that it does not use", settings(minimal), settings(minimal + "[nats.other]\nurls = [\"nats://other\"]"), true},
		{"drain_timeout", settings(minimal), settings(`drain_timeout = "1s"` + minimal), true},
		{"its delivery", settings(minimal), settings(minimal + "[route.orders.delivery]\nin_flight = 3"), false},
		{"its connection", settings(minimal), settings(minimal + "[nats.edge.reconnect]\nmax = \"3s\""), false},
		{"a secret", settings(withSecret), settings(withSecret, "INGEST_TOKEN", "hunter3"), false},
	} {
		if got := reflect.DeepEqual(c.before, c.after); got != c.same {
			t.Errorf("%s changes: the same is %v, want %v", c.name, got, c.same)
		}
	}
}

// Every setting outside of routes and connections is either kept over a reload, or one of those that are known to be applied.
func TestKeepFixed(t *testing.T) {
	applied := []string{"DrainTimeout", "Log.Level"}
	var fixed []string
	running := minimalConfig()
	for name := range settingsOf(reflect.ValueOf(running).Elem(), "") {
		next := minimalConfig()
		alter(t, settingsOf(reflect.ValueOf(next).Elem(), "")[name])
		keys := next.KeepFixed(running)
		kept := diff(running, next) == ""
		if slices.Contains(applied, name) && (kept || len(keys) > 0) {
			t.Errorf("%s should be applied, but is kept: %v", name, keys)
		}
		if !slices.Contains(applied, name) && (!kept || len(keys) != 1) {
			t.Errorf("%s is neither applied nor kept and reported: %v", name, keys)
		}
		fixed = append(fixed, keys...)
	}
	slices.Sort(fixed)
	if diff := cmp.Diff([]string{"admin.listen", "admin.token", "instance", "log.format", "state_dir"}, fixed); diff != "" {
		t.Errorf("fixed keys (-want +got):\n%s", diff)
	}
}

// settingsOf returns the fields of a Config and the structs in it, by name.
func settingsOf(v reflect.Value, prefix string) map[string]reflect.Value {
	all := map[string]reflect.Value{}
	for i := range v.NumField() {
		switch f, name := v.Field(i), prefix+v.Type().Field(i).Name; {
		case name == "NATS" || name == "Routes":
		case f.Kind() == reflect.Struct:
			maps.Copy(all, settingsOf(f, name+"."))
		default:
			all[name] = f
		}
	}
	return all
}

func alter(t *testing.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	default:
		t.Fatalf("cannot alter a %s", v.Type())
	}
}
