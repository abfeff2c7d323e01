package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

const minimal = `
[nats.edge]
urls = ["nats://127.0.0.1:4222"]
[route.orders.source]
type = "core"
nats = "edge"
subjects = ["orders.>"]
[route.orders.sink]
type = "http"
url = "http://127.0.0.1:8080"
`

// minimalConfig is minimal with all defaults, written out: whoever changes one has to change it here, too.
func minimalConfig() *Config {
	return &Config{
		StateDir:     "./natsrelay-state",
		DrainTimeout: 25 * time.Second,
		Instance:     "vm-17",
		Log:          Log{Level: "info", Format: "auto"},
		Admin:        Admin{Listen: "127.0.0.1:7422"},
		NATS: map[string]*NATS{"edge": {
			Name:           "edge",
			URLs:           []string{"nats://127.0.0.1:4222"},
			PingInterval:   20 * time.Second,
			MaxPingsOut:    3,
			ConnectTimeout: 5 * time.Second,
			Reconnect:      Backoff{250 * time.Millisecond, 30 * time.Second},
			InboxPrefix:    "_INBOX",
		}},
		Routes: []*Route{{
			Name:    "orders",
			Enabled: true,
			Source:  Source{Type: "core", Core: &CoreSource{NATS: "edge", Subjects: []string{"orders.>"}, Queue: "natsrelay"}},
			Buffer: Buffer{
				Memory: 64 << 20, Disk: 10 << 30, Persist: "outage", SpillAfter: 2 * time.Second,
				Sync: "interval", SyncInterval: 200 * time.Millisecond, WhenFull: "drop_oldest", Compression: "none", MinFree: 1 << 30,
			},
			Delivery: Delivery{Ordering: "subject", InFlight: 16, Retry: Backoff{500 * time.Millisecond, 30 * time.Second}},
			Sink: Sink{Type: "http", HTTP: &HTTPSink{
				URL: "http://127.0.0.1:8080", Endpoint: "http://127.0.0.1:8080", Method: "POST", Format: "raw",
				Compression: "none", Timeout: 10 * time.Second, HTTP2: true,
			}},
			DeadLetter: DeadLetter{To: "disk", Max: 1 << 30},
		}},
	}
}

func TestDefaults(t *testing.T) {
	if d := diff(minimalConfig(), mustParse(t, minimal)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestEveryKey(t *testing.T) {
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	got := mustParse(t, `
state_dir = "/var/lib/natsrelay"
drain_timeout = "1m"
instance = "${env:HOST_NAME}"
log = { level = "trace", format = "json" }
admin = { listen = ":7422", token = "${cred:password}" }

[nats.a]
urls = ["nats://a:4222", "tls://b"]
user = "u"
password = "${cred:password}"
ping_interval = "1s"
max_pings_out = 1
connect_timeout = "2s"
reconnect = { min = "1s", max = "2s" }
proxy = "socks5://u:${cred:password}@p:1080"
ignore_discovered = true
[nats.a.tls]
ca = "cert.pem"
cert = "cert.pem"
key = "cert.key"
server_name = "n"
handshake_first = true
insecure_skip_verify = true

[nats.b]
urls = ["ws://b", "wss://b/nats"]
creds = "./good.creds"
[nats.c]
urls = ["nats://c"]
nkey_seed = "`+string(seed)+`"
[nats."d e"]
urls = ["nats://d"]
token = "${file:token.txt}"

[route.z]
enabled = false
[route.z.source]
type = "core"
nats = "a"
subjects = ["x", "y.*", "z.>"]
queue = ""
[route.z.sink]
type = "nats"
nats = "d e"
mode = "core"
dedupe = false
[route.z.dead_letter]
to = "drop"

[route.a.source]
type = "core"
nats = "a"
subjects = [
  "x", # the only one
]
[route.a.buffer]
memory = "1MiB"
disk = 0
persist = "overflow"
spill_after = "0s"
sync = "each"
sync_interval = "1s"
when_full = "block"
max_age = "2h"
compression = "zstd"
min_free = "10GB"
[route.a.delivery]
ordering = "strict"
in_flight = 1
retry.min = "1s"
retry.max = "1s"
max_attempts = 7
rate_limit = 100
[route.a.dead_letter]
to = "nats"
nats = "b"
subject = "dead.x"
[route.a.sink]
type = "http"
url = "https://h:8443/${env:HOST_NAME}/{{token(2)}}?key=${env:INGEST_TOKEN}&s={{subject}}&t={{ header(Type) }}"
method = "PUT"
format = "cloudevents_batch"
batch = { messages = 7, bytes = "2KiB", wait = "0s" }
compression = "zstd"
timeout = "1m30s"
headers = { x-key = "Bearer ${env:INGEST_TOKEN}", X-Empty = "", X-Crlf = "${file:crlf.txt}" }
tls = { ca = "cert.pem", cert = "cert.pem", key = "cert.key", server_name = "n" }
oauth2 = { token_url = "https://login/token", client_id = "c", client_secret = "${env:INGEST_TOKEN}", scopes = ["a", "b"] }
signing_secrets = ["whsec_aHVudGVyMg==", "whsec_aHVudGVyMw=="]
http2 = false
proxy = "socks5://u:hunter2@p:1080"
status = { retry = [404], poison = [409, 410], blocked = [] }

[route.b.source]
type = "core"
nats = "a"
subjects = ["b"]
reply = true
[route.b.filter]
when = 'subject == "b" and json.total > 100'
sample = { every = "1m", key = "json.a.b" }
[route.b.transform]
subject = "x.b"
set_headers = { site = "1", Site = "", Key = "${env:INGEST_TOKEN}" }
remove_headers = ["Authorization", "authorization"]
[route.b.sink]
type = "http"
url = "http://h"
basic = { user = "u", password = "${env:INGEST_TOKEN}" }
[route.d.source]
type = "core"
nats = "a"
subjects = ["d"]
[route.d.sink]
type = "nats"
nats = "b"
mode = "jetstream"
stream = "D"
batch_publish = "off"
[route.d.sink.create_stream]
subjects = ["d.>", "e"]
replicas = 3
storage = "memory"
retention = "workqueue"
discard = "new"
max_messages = 1000
max_bytes = "1MiB"
max_age = "1h"
duplicate_window = "1m"
compression = "s2"
[route.c.source]
type = "core"
nats = "a"
subjects = ["c"]
[route.c.sink]
type = "http"
url = "http://h"
format = "json"
bearer_token = "${env:INGEST_TOKEN}"
`, "HOST_NAME", "relay-1")

	want := minimalConfig()
	want.StateDir, want.DrainTimeout, want.Instance = "/var/lib/natsrelay", time.Minute, "relay-1"
	want.Log = Log{"trace", "json"}
	want.Admin = Admin{":7422", "hunter2"}
	connection := func(name string, urls ...string) *NATS {
		n := *minimalConfig().NATS["edge"]
		n.Name, n.URLs = name, urls
		return &n
	}
	want.NATS = map[string]*NATS{
		"a": {
			Name: "a", URLs: []string{"nats://a:4222", "tls://b"}, User: "u", Password: "hunter2",
			TLS:          &NATSTLS{"cert.pem", "cert.pem", "cert.key", "n", true, true},
			PingInterval: time.Second, MaxPingsOut: 1, ConnectTimeout: 2 * time.Second, Reconnect: Backoff{time.Second, 2 * time.Second}, InboxPrefix: "_INBOX",
			Proxy: "socks5://u:hunter2@p:1080", IgnoreDiscovered: true,
		},
		"b":   connection("b", "ws://b", "wss://b/nats"),
		"c":   connection("c", "nats://c"),
		"d e": connection("d e", "nats://d"),
	}
	want.NATS["b"].Creds = "./good.creds"
	want.NATS["c"].NkeySeed = Secret(seed)
	want.NATS["d e"].Token = "hunter2\n" // one newline is cut, not two
	plain := func(name string, change func(*HTTPSink)) *Route {
		r := *minimalConfig().Routes[0]
		r.Name, r.Source.Core = name, &CoreSource{NATS: "a", Subjects: []string{name}, Queue: "natsrelay"}
		r.Sink.HTTP.URL, r.Sink.HTTP.Endpoint = "http://h", "http://h"
		change(r.Sink.HTTP)
		return &r
	}
	filtered := plain("b", func(s *HTTPSink) { s.Basic = &HTTPBasic{"u", "hunter2"} })
	filtered.Source.Core.Reply = true
	filtered.Filter = Filter{When: `subject == "b" and json.total > 100`, Sample: &Sample{Every: time.Minute, Key: "json.a.b"}}
	filtered.Transform = Transform{
		Subject: "x.b", SetHeaders: map[string]Secret{"site": "1", "Site": "", "Key": "hunter2"}, RemoveHeaders: []string{"Authorization", "authorization"},
	}
	want.Routes = []*Route{
		{
			Name: "a", Enabled: true,
			Source:   Source{Type: "core", Core: &CoreSource{NATS: "a", Subjects: []string{"x"}, Queue: "natsrelay"}},
			Buffer:   Buffer{1 << 20, 0, "overflow", 0, "each", time.Second, "block", 2 * time.Hour, "zstd", 10e9},
			Delivery: Delivery{"strict", 1, Backoff{time.Second, time.Second}, 7, 100},
			Sink: Sink{Type: "http", HTTP: &HTTPSink{
				URL:      "https://h:8443/relay-1/{{token(2)}}?key=hunter2&s={{subject}}&t={{ header(Type) }}",
				Endpoint: "https://h:8443/${env:HOST_NAME}/{{token(2)}}",
				Method:   "PUT", Format: "cloudevents_batch", Batch: Batch{7, 2048, 0}, Compression: "zstd", Timeout: 90 * time.Second,
				Headers:        map[string]Secret{"X-Key": "Bearer hunter2", "X-Empty": "", "X-Crlf": "hunter2"},
				OAuth2:         &HTTPOAuth2{"https://login/token", "c", "hunter2", []string{"a", "b"}},
				SigningSecrets: []Secret{"whsec_aHVudGVyMg==", "whsec_aHVudGVyMw=="},
				TLS:            &HTTPTLS{"cert.pem", "cert.pem", "cert.key", "n"},
				Proxy:          "socks5://u:hunter2@p:1080",
				Status:         HTTPStatus{Retry: []int{404}, Poison: []int{409, 410}},
			}},
			DeadLetter: DeadLetter{To: "nats", Max: 1 << 30, NATS: "b", Subject: "dead.x", Given: true},
		},
		filtered,
		plain("c", func(s *HTTPSink) {
			s.Format, s.Batch, s.BearerToken = "json", Batch{500, 1 << 20, 50 * time.Millisecond}, "hunter2"
		}),
		{
			Name: "d", Enabled: true,
			Source:   Source{Type: "core", Core: &CoreSource{NATS: "a", Subjects: []string{"d"}, Queue: "natsrelay"}},
			Buffer:   want.Routes[0].Buffer,
			Delivery: want.Routes[0].Delivery,
			Sink: Sink{Type: "nats", NATS: &NATSSink{NATS: "b", Mode: "jetstream", Dedupe: true, JetStream: &JetStreamSink{
				Stream: "D", BatchPublish: "off",
				Create: &CreateStream{[]string{"d.>", "e"}, 3, "memory", "workqueue", "new", 1000, 1 << 20, time.Hour, time.Minute, "s2"},
			}}},
			DeadLetter: want.Routes[0].DeadLetter,
		},
		{
			Name: "z", Enabled: false,
			Source:   Source{Type: "core", Core: &CoreSource{NATS: "a", Subjects: []string{"x", "y.*", "z.>"}}},
			Buffer:   want.Routes[0].Buffer,
			Delivery: want.Routes[0].Delivery,
			Sink:     Sink{Type: "nats", NATS: &NATSSink{NATS: "d e", Mode: "core"}},

			DeadLetter: DeadLetter{To: "drop", Max: 1 << 30, Given: true},
		},
	}
	if d := diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestEnvironmentDefaults(t *testing.T) {
	tests := []struct {
		name, states, host         string
		wantStateDir, wantInstance string
	}{
		{"systemd", "/var/lib/natsrelay", "vm-17.example.com", "/var/lib/natsrelay", "vm-17.example.com"},
		{"two state directories", "/a:/b", "h", "/a", "h"},
		{"odd host name", "", "Zoë's Mac/Book", "./natsrelay-state", "Zo--s-Mac-Book"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := machine{vars: map[string]string{"STATE_DIRECTORY": tt.states}}.env()
			env.Hostname = tt.host
			c, err := Parse("relay.toml", []byte(minimal), env)
			if err != nil {
				t.Fatal(err)
			}
			if c.StateDir != tt.wantStateDir || c.Instance != tt.wantInstance {
				t.Errorf("state_dir = %q, instance = %q; want %q and %q", c.StateDir, c.Instance, tt.wantStateDir, tt.wantInstance)
			}
		})
	}
}

// TestZeroEnv: the zero Env works, and misses what is missing.
func TestZeroEnv(t *testing.T) {
	_, err := Parse("relay.toml", []byte(`state_dir = "${env:HOME}${file:/etc/hosts}${cred:x}"`+minimal), Env{})
	want := `relay.toml:1:1: instance: this host has no name to take as default, so it is required
relay.toml:1:1: state_dir: credential "x" cannot be read: $CREDENTIALS_DIRECTORY is not set
relay.toml:1:1: state_dir: environment variable "HOME" is not set
relay.toml:1:1: state_dir: file "/etc/hosts" cannot be read: no such file`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay.toml")
	if _, err := Load(path, OS()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: error = %v, want fs.ErrNotExist", err)
	}
	// A byte order mark is skipped, and not counted: x is in column 1.
	if err := os.WriteFile(path, []byte("\ufeffx = 1"+minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path, OS())
	if want := path + ":1:1: x: unknown key"; err == nil || err.Error() != want {
		t.Errorf("error = %v, want %s", err, want)
	}
	if err := os.WriteFile(path, []byte(`state_dir = "${env:NATSRELAY_TEST}"`+minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NATSRELAY_TEST", "from the environment")
	c, err := Load(path, OS())
	if err != nil {
		t.Fatal(err)
	}
	if c.StateDir != "from the environment" {
		t.Errorf("state_dir = %q", c.StateDir)
	}
}
