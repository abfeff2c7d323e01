// Package natsrelay holds what the binary carries from the root of the repository. The program is in cmd/natsrelay.
package natsrelay

import _ "embed"

// ExampleConfig is relay.toml, the commented reference of the configuration. `natsrelay init` prints it.
//
//go:embed relay.toml
var ExampleConfig []byte
