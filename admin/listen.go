package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"
)

// socketMode lets the relay's user and group use its socket.
const socketMode = 0o660

// Listen opens the address of the server: HOST:PORT or unix:PATH.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return listenUnix(ctx, path)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

// listenUnix makes the socket beside its place, with its permissions set, and moves it there: nobody can connect before they are right,
// and the socket that a killed relay has left behind is replaced at once.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := mayReplace(ctx, path); err != nil {
		return nil, err
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", fresh)
	if err != nil {
		return nil, err
	}
	socket := &unixListener{UnixListener: l.(*net.UnixListener), path: path}
	socket.SetUnlinkOnClose(false) // it would remove the name that it was made under
	if socket.made, err = place(fresh, path); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), socket.UnixListener.Close(), os.Remove(fresh))
	}
	return socket, nil
}

// place gives the socket its permissions and its name.
func place(fresh, path string) (os.FileInfo, error) {
	if err := os.Chmod(fresh, socketMode); err != nil {
		return nil, err
	}
	made, err := os.Lstat(fresh)
	if err != nil {
		return nil, err
	}
	return made, os.Rename(fresh, path)
}

// mayReplace returns an error if there is something at the path that is not a socket, or that somebody still listens on.
func mayReplace(ctx context.Context, path string) error {
	found, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if found.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: it exists already, and is not a socket", path)
	}
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("listen on %s: another process listens there", path)
	}
	return nil
}

// unixListener removes its socket when it is closed, unless another one has taken its place.
type unixListener struct {
	*net.UnixListener
	path string
	made os.FileInfo
}

// Addr implements net.Listener: the name that the socket has now.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: l.path} }

func (l *unixListener) Close() error {
	err := l.UnixListener.Close()
	if now, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(now, l.made) {
		err = errors.Join(err, os.Remove(l.path))
	}
	return err
}
