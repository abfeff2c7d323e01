package demo

import (
	_ "embed"
	"strconv"
	"strings"
)

//go:embed demo.toml
var tomlTemplate string

// relayTOML returns the demo's relay.toml: demo.toml with the addresses of this run.
func relayTOML(stateDir, edgeURL, webAddr, cloudAddr string) string {
	return strings.NewReplacer(
		"STATE_DIR", strconv.Quote(stateDir),
		"EDGE_URL", strconv.Quote(edgeURL),
		"WEB_URL", strconv.Quote("http://"+webAddr+"/messages"),
		"CLOUD_URL", strconv.Quote("nats://"+cloudAddr),
		"SUBJECTS", strconv.Quote(subjects),
	).Replace(tomlTemplate)
}
