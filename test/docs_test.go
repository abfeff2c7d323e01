package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/guarantees.md names exists, in the package that it names.
func TestGuaranteesAreTested(t *testing.T) {
	t.Parallel()
	named := 0
	for _, row := range tableRows(t, "../docs/guarantees.md", "guarantee") {
		for _, part := range strings.Split(row[len(row)-1], " · ") {
			dir := regexp.MustCompile("`([^`]+)`").FindStringSubmatch(part)
			if dir == nil {
				t.Errorf("no package in %q", part)
				continue
			}
			source := readAll(t, filepath.Join("..", dir[1]), "_test.go", false)
			for _, name := range regexp.MustCompile(`\bTest\w+`).FindAllString(part, -1) {
				named++
				if !strings.Contains(source, "func "+name+"(t *testing.T)") {
					t.Errorf("there is no test %s in %s", name, dir[1])
				}
			}
		}
	}
	if named < 50 {
		t.Errorf("found only %d tests in the table", named)
	}
}

// Every log message, metric and state that docs/operating.md names in its table exists.
func TestOperatingNamesWhatExists(t *testing.T) {
	t.Parallel()
	source := readAll(t, "..", ".go", true) + readAll(t, "..", "relay.toml", true)
	for _, row := range tableRows(t, "../docs/operating.md", "what you see") {
		for _, quoted := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[0]+row[1], -1) {
			if text := strings.TrimPrefix(quoted[1], "natsrelay_"); !strings.Contains(source, text) {
				t.Errorf("there is no %q in the program", text)
			}
		}
		for _, metric := range regexp.MustCompile(`natsrelay_\w+`).FindAllString(strings.Join(row, " "), -1) {
			if !strings.Contains(source, strings.TrimPrefix(metric, "natsrelay_")) {
				t.Errorf("there is no metric %s", metric)
			}
		}
	}
}

// tableRows returns the cells of the rows of a document's table, whose head begins with this.
func tableRows(t *testing.T, path, head string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n| "+head+" |")
	table, _, _ = strings.Cut(table, "\n\n")
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, "| ") {
			rows = append(rows, strings.Split(strings.Trim(strings.TrimSpace(line), "| "), " | "))
		}
	}
	if len(rows) < 2 {
		t.Fatalf("no table %q in %s", head, path)
	}
	return rows
}

// readAll returns the text of the files in dir whose names end so. Tests are left out where all below dir is read.
func readAll(t *testing.T, dir, ending string, below bool) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && !below:
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ending) || below && strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
