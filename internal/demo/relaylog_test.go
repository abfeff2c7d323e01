package demo

import (
	"fmt"
	"strings"
	"testing"
)

func TestRelayLog(t *testing.T) {
	l := newRelayLog()
	for i := range 100 {
		fmt.Fprintf(l, "{\"level\":\"info\",\"message\":\"line %d\"}\n", i)
	}
	text := `{"route":"web","spilled":12,"message":"route stopped"}` + "\n" + `{"route":"web","spilled":3,"message":"route stopped"}` + "\n"
	for _, piece := range strings.SplitAfter(text, "e") {
		if _, err := l.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.toDisk("web"); got != 15 {
		t.Errorf("spilled: %d", got)
	}
	tail := strings.Split(l.String(), "\n")
	if len(tail) != tailLines || !strings.Contains(tail[tailLines-3], "line 99") {
		t.Errorf("tail of %d lines:\n%s", len(tail), l)
	}
}
