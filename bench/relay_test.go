package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const (
	natsSink = `type = "nats"
nats = "dst"
mode = "core"
dedupe = %[2]t`
	httpSink = `type = "http"
url = "%[1]s"`
)

const relayConfig = `state_dir = %q
instance = "bench"
[nats.src]
urls = [%q]
[nats.dst]
urls = [%q]
[route.bench]
[route.bench.source]
type = "core"
nats = "src"
subjects = ["bench.>"]
[route.bench.delivery]
ordering = %q
[route.bench.sink]
%s
`

// relayTo runs the real binary with one route.
func relayTo(sink, ordering string, dedupe bool) mover {
	return func(b *testing.B, src, dst string) *process {
		dir := b.TempDir()
		natsDst := dst
		if sink == httpSink {
			natsDst = src
		}
		conf := fmt.Sprintf(relayConfig, filepath.Join(dir, "state"), src, natsDst, ordering, fmt.Sprintf(sink+"%.0[2]s%.0[1]s", dst, dedupe))
		path := filepath.Join(dir, "relay.toml")
		if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
			b.Fatal(err)
		}
		return startProcess(b, relayBinary(b), "run", "-c", path)
	}
}

// relayBinary builds the relay; the build cache makes it cheap from the second time on.
func relayBinary(b *testing.B) string {
	path := filepath.Join(b.TempDir(), "natsrelay")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/natsrelay").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	return path
}
