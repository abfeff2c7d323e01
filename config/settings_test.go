package config

import (
	"fmt"
	"reflect"
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
		{"instance", settings(minimal), settings(`instance = "elsewhere"` + minimal), false},
		{"its delivery", settings(minimal), settings(minimal + "[route.orders.delivery]\nin_flight = 3"), false},
		{"its connection", settings(minimal), settings(minimal + "[nats.edge.reconnect]\nmax = \"3s\""), false},
		{"a secret", settings(withSecret), settings(withSecret, "INGEST_TOKEN", "hunter3"), false},
	} {
		if got := reflect.DeepEqual(c.before, c.after); got != c.same {
			t.Errorf("%s changes: the same is %v, want %v", c.name, got, c.same)
		}
	}
}
