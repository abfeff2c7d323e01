package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A sink writes the sink's part of a relay.toml that delivers to dst.
type sink func(dst string) string

func httpSink(dst string) string {
	return fmt.Sprintf("[route.bench.sink]\ntype = \"http\"\nurl = %q\n", dst)
}

func natsSink(dedupe bool) sink {
	return func(dst string) string {
		return fmt.Sprintf("[nats.dst]\nurls = [%q]\n[route.bench.sink]\ntype = \"nats\"\nnats = \"dst\"\nmode = \"core\"\ndedupe = %t\n", dst, dedupe)
	}
}

func httpLines(dst string) string {
	return httpSink(dst) + "format = \"lines\"\nbatch = { messages = 500, wait = \"0s\" }\n"
}

// settings of the relay's route.
type settings struct {
	ordering string
	inFlight int
	buffer   string // lines of [route.bench.buffer]
	admin    string // where the admin server listens; "" = nowhere
}

const persistAlways = `persist = "always"`

const relayConfig = `state_dir = %q
instance = "bench"
admin = { listen = %q }
[nats.src]
urls = [%q]
[route.bench]
[route.bench.source]
type = "core"
nats = "src"
subjects = ["bench.>"]
[route.bench.buffer]
%s
[route.bench.delivery]
ordering = %q
in_flight = %d
%s`

// relayTo runs the real binary with one route.
func relayTo(to sink, s settings) mover {
	return func(b *testing.B, src, dst string) *process {
		dir := b.TempDir()
		conf := fmt.Sprintf(relayConfig, filepath.Join(dir, "state"), s.admin, src, s.buffer, s.ordering, s.inFlight, to(dst))
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
