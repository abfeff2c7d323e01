package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/internal/natstest"
)

// An adminAPI is the admin server of a relay under test.
type adminAPI struct {
	t      *testing.T
	addr   string // HOST:PORT
	client *http.Client
}

func newAdminAPI(t *testing.T) *adminAPI {
	a := &adminAPI{t: t, addr: "127.0.0.1:" + strconv.Itoa(natstest.FreePort(t)), client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}}
	t.Cleanup(a.client.CloseIdleConnections)
	return a
}

// table returns the [admin] table for a configuration.
func (a *adminAPI) table() string { return fmt.Sprintf("\n[admin]\nlisten = %q\n", a.addr) }

// ask returns status and body. The header is given as "Name: value"; Host is one.
func (a *adminAPI) ask(method, path string, body io.Reader, header ...string) (int, string) {
	a.t.Helper()
	code, text, err := a.try(method, path, body, header...)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	return code, text
}

func (a *adminAPI) try(method, path string, body io.Reader, header ...string) (int, string, error) {
	req, err := http.NewRequest(method, "http://"+a.addr+path, body)
	if err != nil {
		return 0, "", err
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	res, err := a.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// isUp waits until the server answers.
func (a *adminAPI) isUp() {
	a.t.Helper()
	within(a.t, 60*time.Second, func() bool {
		code, _, err := a.try("GET", "/livez", nil)
		return err == nil && code == http.StatusOK
	}, "the admin server answers")
}

// becomesReady waits until /readyz says so.
func (a *adminAPI) becomesReady() {
	a.t.Helper()
	a.readyzSays(http.StatusOK, "ready\n", "")
}

// becomesUnready waits until /readyz says that the route is not ready, with these words.
func (a *adminAPI) becomesUnready(reason string) {
	a.t.Helper()
	a.readyzSays(http.StatusServiceUnavailable, "not ready\n", reason)
}

func (a *adminAPI) readyzSays(wantCode int, begin, part string) {
	a.t.Helper()
	var last string
	defer func() {
		if a.t.Failed() {
			a.t.Logf("readyz: %s", last)
		}
	}()
	within(a.t, 60*time.Second, func() bool {
		code, text, err := a.try("GET", "/readyz", nil)
		last = fmt.Sprint(code, " ", text, err)
		return err == nil && code == wantCode && strings.HasPrefix(text, begin) && strings.Contains(text, part)
	}, "readyz says %q, and %q", begin, part)
}

func (a *adminAPI) status() *admin.Status {
	a.t.Helper()
	code, text := a.ask("GET", "/api/v1/status", nil)
	st := new(admin.Status)
	if err := json.Unmarshal([]byte(text), st); code != http.StatusOK || err != nil {
		a.t.Fatalf("status %d, %v: %s", code, err, text)
	}
	return st
}

// metrics returns the value of each series of natsrelay, by its name with its labels.
func (a *adminAPI) metrics() map[string]float64 {
	a.t.Helper()
	code, text := a.ask("GET", "/metrics", nil)
	if code != http.StatusOK {
		a.t.Fatalf("metrics: %d %s", code, text)
	}
	series := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewBufferString(text)); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, "natsrelay_") {
			continue
		}
		at := strings.LastIndex(line, " ")
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			a.t.Fatal(err)
		}
		series[line[:at]] = v
	}
	return series
}
