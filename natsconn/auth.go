package natsconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/natsrelay/natsrelay/config"
)

// checkSeed keeps a seed that can never sign from being retried for ever.
func checkSeed(seed config.Secret) error {
	if seed == "" {
		return nil
	}
	if _, err := publicKey(seed); err != nil {
		return fmt.Errorf("nkey_seed: %w", err) // nkeys' errors do not repeat the seed
	}
	return nil
}

func publicKey(seed config.Secret) (string, error) {
	kp, err := nkeys.FromSeed([]byte(seed.Reveal()))
	if err != nil {
		return "", err
	}
	defer kp.Wipe()
	return kp.PublicKey()
}

// setAuth sets the credentials. The configuration allows one kind only.
func setAuth(o *nats.Options, cfg *config.NATS) {
	o.User, o.Password, o.Token = cfg.User, cfg.Password.Reveal(), cfg.Token.Reveal()
	if cfg.Creds != "" {
		// Not nats.UserCredentials: it tries the file at once, and sets nothing if that fails.
		o.UserJWT = func() (string, error) { return readJWT(cfg.Creds) }
		o.SignatureCB = func(nonce []byte) ([]byte, error) { return signWithCreds(cfg.Creds, nonce) }
	}
	if cfg.NkeySeed != "" {
		o.Nkey, _ = publicKey(cfg.NkeySeed) // checked by Open
		o.SignatureCB = func(nonce []byte) ([]byte, error) { return sign(cfg.NkeySeed, nonce) }
	}
}

// errCreds marks a credentials file that cannot be used now; it may be mended or replaced.
var errCreds = errors.New("read creds")

func readJWT(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errCreds, err)
	}
	defer clear(data)
	token, err := nkeys.ParseDecoratedJWT(data)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", errCreds, path, err)
	}
	return token, nil
}

func signWithCreds(path string, nonce []byte) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCreds, err)
	}
	defer clear(data)
	kp, err := nkeys.ParseDecoratedNKey(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errCreds, path, err)
	}
	defer kp.Wipe()
	return kp.Sign(nonce)
}

func sign(seed config.Secret, nonce []byte) ([]byte, error) {
	kp, err := nkeys.FromSeed([]byte(seed.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("nkey_seed: %w", err)
	}
	defer kp.Wipe()
	return kp.Sign(nonce)
}

// setTLS sets the table's options. Files are read by callbacks at each connect, so that a renewed
// certificate is used from the next connect on (otel #11265); a file that cannot be read fails
// that attempt, not the relay.
func setTLS(o *nats.Options, cfg *config.NATSTLS) {
	if cfg == nil {
		return
	}
	o.Secure = true
	o.TLSHandshakeFirst = cfg.HandshakeFirst && !isWebSocket(o.Servers) // there TLS comes first anyway, and nats.go would make it twice
	o.TLSConfig = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         cfg.ServerName,
		InsecureSkipVerify: cfg.InsecureSkipVerify, // the user's own wish, and logged
	}
	if cfg.CA != "" {
		o.RootCAsCB = func() (*x509.CertPool, error) { return readCA(cfg.CA) }
	}
	if cfg.Cert != "" {
		o.TLSCertCB = func() (tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
			if err != nil {
				return cert, fmt.Errorf("read tls.cert and tls.key: %w", err)
			}
			return cert, nil
		}
	}
}

func readCA(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read tls.ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("read tls.ca: no certificate in " + path)
	}
	return pool, nil
}
