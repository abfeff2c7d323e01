package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// expand replaces ${env:NAME}, ${file:PATH} and ${cred:NAME} in a string of the file, and says whether all of them are there.
// What they stand for is not looked at again, so a password may contain "${".
func (b *binder) expand(v value, s string) (string, bool) {
	var out strings.Builder
	complete := true
	for {
		before, rest, found := strings.Cut(s, "${")
		out.WriteString(before)
		if !found {
			return out.String(), complete
		}
		ref, after, closed := strings.Cut(rest, "}")
		if !closed {
			b.problem(v, `"${" without the "}" that ends it`)
			return "", false
		}
		text, err := b.env.resolve(ref)
		if err != nil {
			b.problem(v, "%v", err)
			complete = false
		}
		out.WriteString(text)
		s = after
	}
}

// resolve returns what stands for the inside of one ${…}.
func (e Env) resolve(ref string) (string, error) {
	kind, name, _ := strings.Cut(ref, ":")
	switch kind {
	case "env":
		text, ok := e.lookup(name)
		if !ok {
			return "", fmt.Errorf("environment variable %q is not set", name)
		}
		return text, nil
	case "file":
		return e.readText(name, fmt.Sprintf("file %q", name))
	case "cred":
		return e.credential(name)
	}
	// The kind is not quoted: this may be a password that happens to contain "${".
	return "", fmt.Errorf("unknown ${…}: there are ${env:NAME}, ${file:PATH} and ${cred:NAME}")
}

// credential reads one of the files that systemd hands over (LoadCredential=, SetCredential=).
func (e Env) credential(name string) (string, error) {
	dir, ok := e.lookup("CREDENTIALS_DIRECTORY")
	if !ok || dir == "" {
		return "", fmt.Errorf("credential %q cannot be read: $CREDENTIALS_DIRECTORY is not set", name)
	}
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return "", fmt.Errorf("credential %q is not the name of a file in $CREDENTIALS_DIRECTORY", name)
	}
	return e.readText(filepath.Join(dir, name), fmt.Sprintf("credential %q", name))
}

// readText reads a file and cuts the one newline that editors and echo leave at its end.
func (e Env) readText(path, what string) (string, error) {
	data, err := e.read(path)
	if err != nil {
		return "", fmt.Errorf("%s cannot be read: %s", what, why(err))
	}
	text, cut := strings.CutSuffix(string(data), "\n")
	if cut {
		text = strings.TrimSuffix(text, "\r")
	}
	return text, nil
}
