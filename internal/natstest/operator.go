package natstest

import (
	"fmt"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// An Operator runs a server in operator mode with one account, and gives its users their credentials.
type Operator struct {
	t                 testing.TB
	operator, account nkeys.KeyPair
	accountID         string
}

// NewOperator makes the keys.
func NewOperator(t testing.TB) *Operator {
	t.Helper()
	o := &Operator{t: t}
	o.operator, _ = newNkey(t, nkeys.CreateOperator)
	o.account, o.accountID = newNkey(t, nkeys.CreateAccount)
	return o
}

func newNkey(t testing.TB, create func() (nkeys.KeyPair, error)) (kp nkeys.KeyPair, public string) {
	t.Helper()
	kp, err := create()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = kp.PublicKey(); err != nil {
		t.Fatal(err)
	}
	return kp, public
}

// Config returns the server's configuration. tune may be nil; it changes the account.
func (o *Operator) Config(tune func(*jwt.AccountClaims)) string {
	o.t.Helper()
	operatorID, err := o.operator.PublicKey()
	if err != nil {
		o.t.Fatal(err)
	}
	account := jwt.NewAccountClaims(o.accountID)
	if tune != nil {
		tune(account)
	}
	return fmt.Sprintf("operator: %s\nresolver: MEMORY\nresolver_preload: { %s: %s }\n",
		o.encode(jwt.NewOperatorClaims(operatorID), o.operator), o.accountID, o.encode(account, o.operator))
}

// Creds returns the credentials file of a new user. tune may be nil; it changes the user.
func (o *Operator) Creds(tune func(*jwt.UserClaims)) []byte {
	o.t.Helper()
	user, id := newNkey(o.t, nkeys.CreateUser)
	claims := jwt.NewUserClaims(id)
	if tune != nil {
		tune(claims)
	}
	seed, err := user.Seed()
	if err != nil {
		o.t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(o.encode(claims, o.account), seed)
	if err != nil {
		o.t.Fatal(err)
	}
	return creds
}

func (o *Operator) encode(claims jwt.Claims, key nkeys.KeyPair) string {
	o.t.Helper()
	token, err := claims.Encode(key)
	if err != nil {
		o.t.Fatal(err)
	}
	return token
}
