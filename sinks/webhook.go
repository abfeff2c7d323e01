package sinks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/natsrelay/natsrelay/config"
)

// A signer signs requests by Standard Webhooks 1.0.0, symmetric scheme v1
// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md). It holds one key, or several while
// they are being replaced: the receiver takes the request if one of the signatures is right for him. Without keys it does nothing.
type signer [][]byte

func newSigner(secrets []config.Secret) (signer, error) {
	var s signer
	for _, secret := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret.Reveal(), "whsec_"))
		if err != nil {
			return nil, errors.New("a signing secret is not base64") // err would show where, and so a bit of it
		}
		s = append(s, key)
	}
	return s, nil
}

// sign adds the three headers for a body, which is signed as it goes over the wire: compressed, if it is. webhook-id is the request's
// Idempotency-Key, the same at each attempt; the timestamp is that of the attempt, for receivers refuse old ones.
func (s signer) sign(header http.Header, now time.Time, body []byte) {
	if len(s) == 0 {
		return
	}
	id := header.Get("Idempotency-Key")
	timestamp := strconv.FormatInt(now.Unix(), 10)
	signatures := make([]string, len(s))
	for i, key := range s {
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(webhookMAC(key, id, timestamp, body))
	}
	header["Webhook-Id"] = []string{id}
	header["Webhook-Timestamp"] = []string{timestamp}
	header["Webhook-Signature"] = []string{strings.Join(signatures, " ")}
}

// webhookMAC is over id, timestamp and body with full stops between them.
func webhookMAC(key []byte, id, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return mac.Sum(nil)
}
