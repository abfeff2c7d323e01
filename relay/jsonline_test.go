package relay

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestJSONLineRoundTrip(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 123, time.UTC)
	for name, tc := range map[string]struct {
		data string
		want string
	}{
		"json":             {`{"n":1,"s":"<é>"}`, `"data":{"n":1,"s":"<é>"}`},
		"json with blanks": {`{"n": 1}`, `"data_base64":"eyJuIjogMX0="`},
		"text":             {"hello", `"data_base64":"aGVsbG8="`},
		"null":             {"null", `"data":null`},
		"nothing":          {"", `"data_base64":""`},
		"bytes":            {"\x00\xff", `"data_base64":"AP8="`},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Stored{Seq: 7, Message: Message{ID: "id", Subject: "a.b", Time: at, Stream: "ORDERS", Sequence: 9, Header: Header{"K": {"1", "2"}}, Data: []byte(tc.data)}}
			out, err := s.AppendJSONLine(nil)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(out), tc.want) || strings.Count(string(out), "\n") != 1 {
				t.Errorf("line %s\nshould contain %s", out, tc.want)
			}
			got, err := ParseJSONLine(out)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s, got, compareMessages); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseJSONLineRefuses(t *testing.T) {
	const good = `{"id":"1","subject":"a","time":"2026-11-01T12:00:00Z","data":1}`
	if _, err := ParseJSONLine([]byte(good + "\r\n")); err != nil {
		t.Fatal(err)
	}
	at := `,"time":"2026-11-01T12:00:00Z"`
	for _, bad := range []string{
		"", "[]", `{"id":"1","data":1` + at + `}`, `{"subject":"a","data":1` + at + `}`, `{"id":"1","subject":"a"` + at + `}`,
		`{"id":"1","subject":"a","data":1,"data_base64":""` + at + `}`, `{"id":"1","subject":"a","data_base64":"%"` + at + `}`,
		`{"id":"1","subject":"a","data":1,"extra":2` + at + `}`, good + good, good + ",", good + " x",
		`{"id":"1","subject":"a","data":1}`, `{"id":"1","subject":"a","data":1,"time":"2400-01-01T00:00:00Z"}`,
	} {
		if s, err := ParseJSONLine([]byte(bad)); err == nil {
			t.Errorf("%s: no error, but %+v", bad, s)
		}
	}
}
