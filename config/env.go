package config

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// Env is what a configuration takes from outside its file. The zero Env is an empty machine: no variables, no files, no name.
type Env struct {
	LookupEnv func(name string) (value string, ok bool)
	ReadFile  func(path string) ([]byte, error) // relative paths: from the working directory of the process
	Hostname  string
}

// OS returns the environment of this process.
func OS() Env {
	host, _ := os.Hostname() // without one, instance has no default, and Parse says so
	return Env{LookupEnv: os.LookupEnv, ReadFile: os.ReadFile, Hostname: host}
}

func (e Env) lookup(name string) (string, bool) {
	if e.LookupEnv == nil {
		return "", false
	}
	return e.LookupEnv(name)
}

func (e Env) read(path string) ([]byte, error) {
	if e.ReadFile == nil {
		return nil, fs.ErrNotExist
	}
	return e.ReadFile(path)
}

// DefaultStateDir is the default of state_dir where systemd does not set one.
const DefaultStateDir = "./natsrelay-state"

// stateDir is the default of state_dir. systemd separates several state directories by colons.
func (e Env) stateDir() string {
	list, _ := e.lookup("STATE_DIRECTORY")
	if first, _, _ := strings.Cut(list, ":"); first != "" {
		return first
	}
	return DefaultStateDir
}

// instance is the default of instance: the host's name with what a message header may not carry replaced.
func (e Env) instance() string {
	return strings.Map(func(r rune) rune {
		if isInstanceChar(r) {
			return r
		}
		return '-'
	}, e.Hostname)
}

// why returns the reason of a failed read without the path, which may come out of a ${…}.
func why(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "no such file"
	}
	return err.Error()
}
