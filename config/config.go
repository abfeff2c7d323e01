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
	Admin        Admin
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

	Proxy            Secret // socks5:// or http:// URL, which may hold a password; "" = none
	JetStreamDomain  string // "" = that of the server
	InboxPrefix      string
	IgnoreDiscovered bool // connect to URLs only, not to servers that the cluster tells of
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
	Name      string
	Enabled   bool
	Source    Source
	Filter    Filter
	Transform Transform
	Buffer    Buffer
	Delivery  Delivery
	Sink      Sink

	DeadLetter DeadLetter
}

// Source is a [route.NAME.source] table. Exactly one of the pointers is set, as Type says.
type Source struct {
	Type      string // core | jetstream
	Core      *CoreSource
	JetStream *JetStreamSource
}

// CoreSource is a source of type core.
type CoreSource struct {
	NATS     string // key of Config.NATS
	Subjects []string
	Queue    string // "" = plain subscription
	Reply    bool   // answer requests with the response of the http sink
}

// Buffer is a [route.NAME.buffer] table.
type Buffer struct {
	Memory       int64  // bytes
	Disk         int64  // bytes; 0 = never spill
	Persist      string // overflow | outage | always
	SpillAfter   time.Duration
	Sync         string // each | interval | never
	SyncInterval time.Duration
	WhenFull     string        // block | drop_oldest | drop_newest
	MaxAge       time.Duration // 0 = never
	Compression  string        // none | s2 | zstd
	MinFree      int64         // bytes
}

// Delivery is a [route.NAME.delivery] table.
type Delivery struct {
	Ordering string // strict | subject | none
	InFlight int
	Retry    Backoff

	MaxAttempts int // 0 = for ever
	RateLimit   int // messages a second; 0 = off
}

// DeadLetter is a [route.NAME.dead_letter] table.
type DeadLetter struct {
	To      string // disk | nats | drop
	Max     int64  // bytes, of the folder on disk
	NATS    string // key of Config.NATS, for nats
	Subject string // for nats
	Given   bool   // the file has the table: messages that are too old are dead letters then, too
}

// Sink is a [route.NAME.sink] table. Exactly one of the pointers is set, as Type says.
type Sink struct {
	Type string // http | nats
	HTTP *HTTPSink
	NATS *NATSSink
}

// HTTPSink is a sink of type http.
type HTTPSink struct {
	URL            string `json:"-" toml:"-"` // may hold a credential; what is shown is Endpoint. May be a template: see ParseURLTemplate
	Endpoint       string // the URL for logs and the status API: as the file has it, so with each ${…} unexpanded, without its query
	Method         string
	Format         string // raw | lines | json | envelope | cloudevents | cloudevents_batch
	Batch          Batch  // zero for the formats of one message a request: raw, cloudevents
	Compression    string // none | gzip | zstd
	Timeout        time.Duration
	Headers        map[string]Secret // names in canonical form; a value may be a credential
	BearerToken    Secret
	Basic          *HTTPBasic  // nil: none
	OAuth2         *HTTPOAuth2 // nil: none
	SigningSecrets []Secret    // Standard Webhooks: "whsec_" and base64
	TLS            *HTTPTLS    // nil: the system's roots
	HTTP2          bool
	Proxy          Secret // a URL, which may hold a password; "": as the environment says
	Status         HTTPStatus
}

// Batch bounds the batches of a sink.
type Batch struct {
	Messages int
	Bytes    int64         // of a request's body before compression; one message alone may exceed it
	Wait     time.Duration // how long a batch that is not full waits for more
}

// HTTPBasic is the basic table of an http sink.
type HTTPBasic struct {
	User     string
	Password Secret
}

// HTTPOAuth2 is the oauth2 table of an http sink: the client credentials grant (RFC 6749, section 4.4).
type HTTPOAuth2 struct {
	TokenURL     string
	ClientID     string
	ClientSecret Secret
	Scopes       []string
}

// HTTPTLS is the tls table of an http sink.
type HTTPTLS struct {
	CA, Cert, Key string // paths of PEM files, read again when they change
	ServerName    string
}

// HTTPStatus is the status table of an http sink: response statuses whose meaning differs from the usual.
type HTTPStatus struct {
	Retry, Poison, Blocked []int
}
