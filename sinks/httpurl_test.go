package sinks

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/natsrelay/natsrelay/relay"
)

func TestHTTPURLTemplates(t *testing.T) {
	m := &relay.Message{Subject: "orders.eu.a/b c?&é", Header: relay.Header{"Kind": {"new", "old"}, "Up": {".."}, "Lone": {"a/../b"}}}
	for template, want := range map[string]string{
		"https://h/v1/{{token(2)}}":                        "https://h/v1/eu",
		"https://h/{{token(1)}}-{{ token(2) }}":            "https://h/orders-eu",
		"https://h/{{token(3)}}?x={{token(3)}}":            "https://h/a%2Fb%20c%3F&%C3%A9?x=a%2Fb+c%3F%26%C3%A9",
		"https://h/{{subject}}/{{header(Kind)}}":           "https://h/orders.eu.a%2Fb%20c%3F&%C3%A9/new",
		"https://h?s={{header(Kind)}}&up={{header(Up)}}":   "https://h?s=new&up=..",
		"https://h/{{header(Lone)}}":                       "https://h/a%2F..%2Fb",
		"https://h/fixed":                                  "",
		"https://h/{{token(4)}}":                           "error",
		"https://h/{{header(kind)}}":                       "error", // names of NATS headers are case-sensitive
		"https://h/{{header(Missing)}}?s={{header(Kind)}}": "error",
		"https://h/a/{{header(Up)}}/b":                     "error",
	} {
		target, err := newTarget(template)
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		got, err := target.url(m)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %q (%v), want %q", template, got, err, want)
		}
	}
}

// A batch for several URLs is several requests, in its order, and a message without a URL is refused alone.
func TestHTTPBatchByURL(t *testing.T) {
	srv := newRecorder(t, nil)
	batch := payloads("a", "b", "c", "d", "e")
	for i, subject := range []string{"o.eu", "o.eu", "o.us", "o", "o.eu"} {
		batch[i].Subject = subject
	}
	outcomes, _, err := deliverBatch(t, newHTTP(t, batchConfig(srv.URL+"/{{token(2)}}", "lines")), batch)
	if err != nil || outcomes != "DDDRD" {
		t.Fatalf("outcomes %s, error %v", outcomes, err)
	}
	var got []string
	for _, r := range srv.take() {
		got = append(got, r.path+" "+r.body)
	}
	if diff := cmp.Diff([]string{"/eu a\nb", "/us c", "/eu e"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
