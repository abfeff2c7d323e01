package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

const canary = "canary-5f1c"

// TestSecretsNeverShow puts a canary into every field of type Secret, and into the URL of a sink,
// and prints the Config in every way there is.
func TestSecretsNeverShow(t *testing.T) {
	c := minimalConfig()
	n := c.NATS["edge"]
	n.NkeySeed, n.Password, n.Token, n.Proxy = canary, canary, canary, canary
	c.Admin.Token = canary
	h := c.Routes[0].Sink.HTTP
	h.Headers = map[string]Secret{"Authorization": canary}
	h.BearerToken, h.Proxy, h.SigningSecrets = canary, canary, []Secret{canary}
	h.Basic, h.OAuth2 = &HTTPBasic{Password: canary}, &HTTPOAuth2{ClientSecret: canary}
	h.URL += "?key=" + canary

	var out bytes.Buffer
	sink := c.Routes[0].Sink
	for _, v := range []any{c, *c, n, *n, c.Routes[0], sink, sink.HTTP, *sink.HTTP, h.Basic, *h.Basic, h.OAuth2, *h.OAuth2, h.SigningSecrets, n.Token, &n.Token, []Secret{n.Token}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%10.3v"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Error(err)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	for _, v := range []any{c, *c, n, *n, n.Token, &n.Token, []Secret{n.Token}} {
		for _, wrong := range []string{"%d", "%t", "%f", "%c", "%U"} {
			fmt.Fprintf(&out, wrong+"\n", v)
		}
	}
	if err := toml.NewEncoder(&out).Encode(c); err != nil {
		t.Error(err)
	}
	for _, shown := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprintf("%d", []byte(canary))} {
		if i := strings.Index(out.String(), shown); i >= 0 {
			t.Errorf("shown: …%.200s", out.String()[max(0, i-100):])
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("no placeholder: were the secrets printed at all?")
	}
	if got := n.Token.Reveal(); got != canary {
		t.Errorf("Reveal() = %q", got)
	}
	if got := Secret("").String(); got != "" {
		t.Errorf("empty secret prints as %q", got)
	}
}

// TestExpansionsNeverShow gives every key of the schema a value out of the environment, most of them wrong, and looks at the errors.
func TestExpansionsNeverShow(t *testing.T) {
	for _, secret := range []string{
		canary, canary + "\n", "{{" + canary, "nats://u:" + canary + "@h", "nats://u:" + canary + "#@h:x", "https://u:" + canary + "@h",
		"http://[" + canary, "http://h:" + canary, "${" + canary, canary + ".>.x", " " + canary, "SU" + canary, "5" + canary, "64MiB" + canary,
	} {
		m := machine{vars: map[string]string{"CANARY": secret, "CREDENTIALS_DIRECTORY": "/" + canary}}
		for path := range schemaPaths() {
			for _, kind := range []string{"core", "http", "nats"} {
				for _, written := range []string{`"${env:CANARY}"`, `["${env:CANARY}"]`, `"${cred:x}"`, `{ X-A = "${env:CANARY}" }`} {
					src := path + " = " + written + "\n"
					if table := path[:strings.LastIndexByte(path, '.')+1]; strings.HasSuffix(table, "source.") || strings.HasSuffix(table, "sink.") {
						src += table + "type = '" + kind + "'\n"
					}
					if _, err := Parse("relay.toml", []byte(src), m.env()); err == nil || strings.Contains(err.Error(), canary) {
						t.Errorf("%s\nerror: %v", src, err)
					}
				}
			}
		}
	}
}

// TestSyntaxErrorsNeverShow: who forgets the quotes around a password shall not find it in the log.
func TestSyntaxErrorsNeverShow(t *testing.T) {
	for _, written := range []string{
		"canary", "canaryCANARY", `"canary`, `canary"`, `'canary`, `"canary\q"`, `"canary\x"`, `"canary\xcanary"`, `"canary\ucana"`,
		`"\Ucanary00"`, `"""canary`, `["canary" canary]`, `{ canary }`, `{ a = canary }`, "+canary", "-canary",
		"99999999999999999942", "0123456942", "1_000__942", "942e999999", "0x942942942942942942942", "942.", "942.942.942",
		"2024-13-42T00:00:00Z942", "1942-99-99", "inf942", "+0x942", "true942", "truecanary",
	} {
		_, err := Parse("relay.toml", []byte("[nats.edge]\npassword = "+written+"\n"), Env{})
		if err == nil || strings.Contains(strings.ToLower(err.Error()), "canary") || strings.Contains(err.Error(), "942") {
			t.Errorf("%s\nerror: %v", written, err)
		} else {
			t.Logf("%-30s %v", written, err)
		}
	}
}
