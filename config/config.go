// Package config reads relay.toml: schema, defaults, decoding with positions, validation, secrets.
//
// It is pure: it reads the file and the secrets that it names, and opens no socket and no spool.
// The other packages take their settings from the plain data declared here; config knows none of them.
//
// How a file becomes a Config: package toml decodes it into maps, [locate] finds out where each key stands, and a [binder]
// walks both along the schema (schema.go, route.go), in which each key is one line. Problems are collected, never returned early.
//
// Paths in the file, those in ${file:PATH} too, are relative to the working directory of the process.
package config

import "time"

// Config is a whole, valid relay.toml with defaults filled in.
type Config struct {
	StateDir     string
	DrainTimeout time.Duration
	Instance     string
	Log          Log
	NATS         map[string]*NATS
	Routes       []*Route // sorted by name; disabled ones included
}

// Log is the [log] table.
type Log struct {
	Level  string // trace | debug | info | warn | error
	Format string // auto | json | console
}

// NATS is a [nats.NAME] table: one connection.
type NATS struct {
	Name           string
	URLs           []string
	Creds          string // path of a .creds file, read again at each connect
	NkeySeed       Secret
	User           string
	Password       Secret
	Token          Secret
	TLS            *NATSTLS // nil: as the URL's scheme says
	PingInterval   time.Duration
	MaxPingsOut    int
	ConnectTimeout time.Duration
	Reconnect      Backoff
}

// NATSTLS is the tls table of a [nats.NAME].
type NATSTLS struct {
	CA, Cert, Key      string // paths of PEM files, read again at each connect
	ServerName         string
	HandshakeFirst     bool
	InsecureSkipVerify bool
}

// Backoff bounds an exponential backoff with full jitter.
type Backoff struct {
	Min, Max time.Duration
}

// Route is a [route.NAME] table: one source and one sink.
type Route struct {
	Name     string
	Enabled  bool
	Source   Source
	Buffer   Buffer
	Delivery Delivery
	Sink     Sink
}

// Source is a [route.NAME.source] table. Exactly one of the pointers is set, as Type says.
type Source struct {
	Type string // core
	Core *CoreSource
}

// CoreSource is a source of type core.
type CoreSource struct {
	NATS     string // key of Config.NATS
	Subjects []string
	Queue    string // "" = plain subscription
}

// Buffer is a [route.NAME.buffer] table.
type Buffer struct {
	Memory       int64
	Disk         int64  // 0 = never spill
	Persist      string // overflow | outage | always
	SpillAfter   time.Duration
	Sync         string // each | interval | never
	SyncInterval time.Duration
	WhenFull     string // block | drop_oldest | drop_newest
	MaxAge       time.Duration
	Compression  string // none | s2 | zstd
	MinFree      int64
}

// Delivery is a [route.NAME.delivery] table.
type Delivery struct {
	Ordering string // strict | subject | none
	InFlight int
	Retry    Backoff
}

// Sink is a [route.NAME.sink] table. Exactly one of the pointers is set, as Type says.
type Sink struct {
	Type string // http | nats
	HTTP *HTTPSink
	NATS *NATSSink
}

// HTTPSink is a sink of type http.
type HTTPSink struct {
	URL      string `json:"-" toml:"-"` // may hold a credential; what is shown is Endpoint
	Endpoint string // the URL for logs and the status API: as the file has it, so with each ${…} unexpanded, without its query
	Method   string
	Format   string // raw
	Timeout  time.Duration
	Headers  map[string]Secret // names in canonical form; a value may be a credential
	TLS      *HTTPTLS          // nil: the system's roots
}

// HTTPTLS is the tls table of an http sink.
type HTTPTLS struct {
	CA, Cert, Key string // paths of PEM files
	ServerName    string
}

// NATSSink is a sink of type nats.
type NATSSink struct {
	NATS   string // key of Config.NATS
	Mode   string // core
	Dedupe bool   // send Nats-Msg-Id
}
