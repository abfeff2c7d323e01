package sinks

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/config"
)

// The example of the specification's reference libraries. (test/interop has requests verified by one of them.)
func TestWebhookSignature(t *testing.T) {
	s, err := newSigner([]config.Secret{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{"Idempotency-Key": {"msg_p5jXN8AQM9LWM0D4loKWxJek"}}
	s.sign(header, time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if got, want := header.Get("webhook-signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signature %q, want %q", got, want)
	}
	if header.Get("webhook-id") != "msg_p5jXN8AQM9LWM0D4loKWxJek" || header.Get("webhook-timestamp") != "1614265330" {
		t.Errorf("headers %v", header)
	}
}

// What is signed is what arrives, with each of the secrets, and with the time of the attempt.
func TestHTTPSignsRequests(t *testing.T) {
	keys := [][]byte{[]byte("the old key of 24 bytes!"), []byte("the new key of 24 bytes!")}
	for _, compression := range []string{"none", "gzip"} {
		srv := newRecorder(t, nil)
		cfg := batchConfig(srv.URL, "lines")
		cfg.Compression = compression
		for _, key := range keys {
			cfg.SigningSecrets = append(cfg.SigningSecrets, config.Secret("whsec_"+base64.StdEncoding.EncodeToString(key)))
		}
		before := time.Now().Unix()
		if outcomes, _, err := deliverBatch(t, newHTTP(t, cfg), payloads("a", "b")); err != nil || outcomes != "DD" {
			t.Fatalf("outcomes %s, error %v", outcomes, err)
		}
		got := srv.take()[0]
		id, timestamp := got.header.Get("webhook-id"), got.header.Get("webhook-timestamp")
		if at, err := strconv.ParseInt(timestamp, 10, 64); err != nil || at < before || at > time.Now().Unix() {
			t.Errorf("timestamp %q", timestamp)
		}
		if id == "" || id != got.header.Get("Idempotency-Key") {
			t.Errorf("id %q", id)
		}
		signatures := strings.Split(got.header.Get("webhook-signature"), " ")
		for i, key := range keys {
			want := "v1," + base64.StdEncoding.EncodeToString(webhookMAC(key, id, timestamp, []byte(got.body)))
			if len(signatures) != len(keys) || signatures[i] != want {
				t.Errorf("signatures %q, want %q at %d", signatures, want, i)
			}
		}
	}
}
