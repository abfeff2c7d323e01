package admin

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/prometheus/client_golang/prometheus"
)

var documented = regexp.MustCompile("(?m)^\\| `(natsrelay_[a-z_]+)` \\| ([a-z]+) \\|(.*?)\\| (.*) \\|$")

// The documentation lists exactly the metrics that are exposed, with their types and labels, and every value that a label may have.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/admin.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range documented.FindAllStringSubmatch(string(text), -1) {
		labels := strings.Split(strings.NewReplacer("`", "", " ", "").Replace(m[3]), ",")
		slices.Sort(labels)
		want = append(want, strings.TrimSpace(m[1]+" "+m[2]+" "+strings.Join(labels, " ")))
	}
	got := exposed(t)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("documented and not exposed (-), exposed and not documented (+):\n%s", diff)
	}
	for _, value := range slices.Concat(relay.DropReasons(), relay.DeadReasons(), names(relay.States()), names(natsconn.Kinds()), []string{"ok", "failed", "memory", "disk"}) {
		if !strings.Contains(string(text), "`"+value+"`") {
			t.Errorf("the documentation does not mention %q", value)
		}
	}
}

func names[S ~string](values []S) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}

// exposed returns what the collector makes of one route and one connection: "name type labels".
func exposed(t *testing.T) []string {
	t.Helper()
	c := &collector{opts: &Options{
		Relay: fakeRelay{{Name: "r", Stats: relay.RouteStats{
			Dropped: map[string]uint64{"x": 1}, DeadLetters: map[string]uint64{"x": 1}, Latency: relay.Histogram{Counts: []uint64{1}},
		}}},
		Connections:  func() []Connection { return []Connection{{Name: "n", Errors: map[string]uint64{"x": 1}}} },
		ReloadFailed: func() bool { return false },
	}, descs: newDescs()}
	registry := prometheus.NewPedanticRegistry() // Describe and Collect must agree
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		line := f.GetName() + " " + strings.ToLower(f.GetType().String())
		for _, label := range f.GetMetric()[0].GetLabel() {
			line += " " + label.GetName()
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return all
}

// fakeRelay is a relay that stands as the test says.
type fakeRelay []relay.RouteStatus

func (f fakeRelay) Status() []relay.RouteStatus { return f }
func (f fakeRelay) Route(string) *relay.Route   { return nil }
func (f fakeRelay) Stopping() bool              { return false }

// Several connections of one name are one in the metrics.
func TestMerge(t *testing.T) {
	got := merge([]Connection{
		{Name: "b", Connected: true, Reconnects: 1, Errors: map[string]uint64{"tls": 1, "auth": 0}},
		{Name: "a", Connected: true, Errors: map[string]uint64{"tls": 7}},
		{Name: "b", Connected: false, Reconnects: 2, Errors: map[string]uint64{"tls": 2, "auth": 3}},
	})
	want := []Connection{
		{Name: "a", Connected: true, Errors: map[string]uint64{"tls": 7}},
		{Name: "b", Connected: false, Reconnects: 3, Errors: map[string]uint64{"tls": 3, "auth": 3}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
