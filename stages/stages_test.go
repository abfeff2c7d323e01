package stages

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
)

// route is the configuration of a route whose source has these subjects.
func route(subjects ...string) *config.Route {
	return &config.Route{Source: config.Source{Type: "core", Core: &config.CoreSource{Subjects: subjects}}}
}

func newStage(t testing.TB, r *config.Route) relay.Stage {
	t.Helper()
	s, err := New(r)
	if err != nil || s == nil {
		t.Fatalf("New: %v, stage %p", err, s)
	}
	return s
}

func TestNothingToDo(t *testing.T) {
	if s, err := New(route("a.>")); s != nil || err != nil {
		t.Errorf("stage %p, error %v; want none", s, err)
	}
}

func TestOrderOfTheStages(t *testing.T) {
	r := route("orders.*", "bills.>")
	r.Filter.When = `json.total > 100`
	r.Filter.Sample = &config.Sample{Every: time.Hour, Key: "subject"}
	r.Transform.Subject = "x.{{wildcard(1)}}"
	r.Source.Core.Subjects = []string{"orders.*", "*"}
	s := newStage(t, r)
	for _, tc := range []struct {
		subject, data string
		want          relay.Verdict
		after         string // subject; "" stands for an error
	}{
		{"orders.a", `{"total": 5}`, relay.Filtered, "orders.a"}, // takes no sample's place
		{"orders.a", `{"total": 500}`, relay.Pass, "x.a"},
		{"orders.a", `{"total": 501}`, relay.Sampled, "orders.a"},
		{"orders.b", `no JSON`, relay.Pass, ""},
		{"orders.b", `{"total": 500}`, relay.Pass, "x.b"},
		{"bills.a.b", `{"total": 500}`, relay.Pass, ""}, // no subject of the source
		{"lonely", `{"total": 500}`, relay.Pass, "x.lonely"},
	} {
		m := &relay.Message{Subject: tc.subject, Data: []byte(tc.data)}
		got, err := s(m)
		if got != tc.want || (err != nil) != (tc.after == "") {
			t.Errorf("%s %s: verdict %d, error %v; want %d", tc.subject, tc.data, got, err, tc.want)
		}
		if want := tc.after; want != "" && m.Subject != want || err != nil && m.Subject != tc.subject {
			t.Errorf("%s %s becomes %s", tc.subject, tc.data, m.Subject)
		}
	}
}

func TestTransformHeaders(t *testing.T) {
	for name, tc := range map[string]struct {
		set    map[string]config.Secret
		remove []string
		header relay.Header
		want   relay.Header
	}{
		"set":           {set: map[string]config.Secret{"Site": "a"}, header: relay.Header{"X": {"1"}}, want: relay.Header{"X": {"1"}, "Site": {"a"}}},
		"replace all":   {set: map[string]config.Secret{"Site": "a"}, header: relay.Header{"Site": {"1", "2"}}, want: relay.Header{"Site": {"a"}}},
		"exact key":     {set: map[string]config.Secret{"Site": "a"}, header: relay.Header{"site": {"1"}}, want: relay.Header{"site": {"1"}, "Site": {"a"}}},
		"no header":     {set: map[string]config.Secret{"Site": "a"}, want: relay.Header{"Site": {"a"}}},
		"remove":        {remove: []string{"A", "b"}, header: relay.Header{"A": {"1"}, "B": {"2"}}, want: relay.Header{"B": {"2"}}},
		"remove of nil": {remove: []string{"A"}},
		"remove, then set": {
			set: map[string]config.Secret{"A": "2"}, remove: []string{"A"}, header: relay.Header{"A": {"1"}}, want: relay.Header{"A": {"2"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := route("a.>")
			r.Transform = config.Transform{SetHeaders: tc.set, RemoveHeaders: tc.remove}
			m := &relay.Message{Subject: "a.b", Header: tc.header}
			if v, err := newStage(t, r)(m); v != relay.Pass || err != nil {
				t.Fatalf("verdict %d, error %v", v, err)
			}
			if diff := cmp.Diff(tc.want, m.Header); diff != "" || m.Subject != "a.b" {
				t.Errorf("%s, headers (-want +got):\n%s", m.Subject, diff)
			}
		})
	}
}

// A header that is set is one slice for all messages: what is added to one of them must not show in another.
func TestTransformSharesNothing(t *testing.T) {
	r := route("a")
	r.Transform.SetHeaders = map[string]config.Secret{"Site": "a"}
	s := newStage(t, r)
	one, other := &relay.Message{Subject: "a"}, &relay.Message{Subject: "a"}
	for _, m := range []*relay.Message{one, other} {
		if _, err := s(m); err != nil {
			t.Fatal(err)
		}
		m.Header["Site"] = append(m.Header["Site"], fmt.Sprintf("%p", m))
	}
	if one.Header["Site"][1] == other.Header["Site"][1] {
		t.Error("both messages show what was added to one")
	}
}

// FuzzStage: no message makes the stages panic; one with an error is as it came; and its fate is the same again.
func FuzzStage(f *testing.F) {
	var all []relay.Stage
	for _, change := range []func(*config.Route){
		func(r *config.Route) { r.Filter.When = `json.a?.b == header["k"] || size > 3 && subject contains "x"` },
		func(r *config.Route) { r.Transform.Subject = `{{split(1,-)}}.{{left(1,2)}}.{{partition(7,1)}}` },
		func(r *config.Route) { r.Filter.Sample = &config.Sample{Every: time.Nanosecond, Key: "json.a.b"} },
		func(r *config.Route) {
			r.Transform = config.Transform{SetHeaders: map[string]config.Secret{"k": "v"}, RemoveHeaders: []string{"x"}}
		},
	} {
		r := route("*")
		change(r)
		all = append(all, newStage(f, r))
	}
	f.Add("a-b", "k", "v", []byte(`{"a": {"b": "v"}}`))
	f.Add("-", "", "", []byte(`{"a": {"b": 1e999}}`))
	f.Add("-", "k", "v", []byte(`{}`))
	f.Add("", "x", "\r\n", []byte(strings.Repeat(`{"a":`, 100)))
	f.Fuzz(func(t *testing.T, subject, key, value string, data []byte) {
		for i, s := range all {
			judge := func() (relay.Message, relay.Verdict, error) {
				m := relay.Message{Subject: subject, Header: relay.Header{key: {value}}, Data: data}
				v, err := s(&m)
				return m, v, err
			}
			m, v, err := judge()
			again, v2, err2 := judge()
			if v != v2 || (err == nil) != (err2 == nil) || m.Subject != again.Subject {
				t.Errorf("stage %d: %d, %v; then %d, %v", i, v, err, v2, err2)
			}
			came := relay.Message{Subject: subject, Header: relay.Header{key: {value}}, Data: data}
			if diff := cmp.Diff(came, m, cmpopts.IgnoreUnexported(relay.Message{})); err != nil && diff != "" {
				t.Errorf("stage %d: %v, and the message was changed: %s", i, err, diff)
			}
		}
	})
}
