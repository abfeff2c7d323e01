package config

import "testing"

// Source and sink may be one connection if the subject moves out of what the source subscribes to.
func TestLoopThatTheMappingLeaves(t *testing.T) {
	const file = `
[nats.edge]
urls = ["nats://127.0.0.1:4222"]
[route.o]
source = { type = "core", nats = "edge", subjects = ["in.*.*"] }
sink = { type = "nats", nats = "edge", mode = "core" }
[route.o.transform]
subject = "`
	for _, subject := range []string{"out.{{wildcard(2)}}.$1", "in.{{wildcard(1)}}", "in.{{partition(3,1)}}.a.{{split(1,-)}}"} {
		mustParse(t, file+subject+`"`)
	}
	for _, subject := range []string{"in.{{wildcard(2)}}.$1", "in.{{split(1,-)}}", "{{left(1,2)}}.b.c"} {
		if _, err := Parse("relay.toml", []byte(file+subject+`"`), testMachine().env()); err == nil {
			t.Errorf("%s is accepted", subject)
		}
	}
}
