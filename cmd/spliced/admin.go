package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/cmd/spliced/internal/adminpage"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config"
)

// admin answers the operators of a daemon, over HTTP.
type admin struct {
	doors   []door
	api     *adminapi.API
	server  *http.Server
	halls   []*hall // once it serves
	serving sync.WaitGroup
	served  bool
	closed  sync.Once
}

// A door is an address where operators ask.
type door struct {
	address string // as configured
	ln      net.Listener
}

// newAdmin answers nobody before serve. passed is what a predecessor has listened
// on, by address; the rest is opened.
func newAdmin(ctx context.Context, file *config.File, passed map[string]net.Listener, d *daemon) (*admin, error) {
	token, err := readToken(&file.Admin, d.log)
	if err != nil {
		return nil, err
	}
	a := &admin{api: adminapi.New(d.server, operated{d}, d.log)}
	a.api.SetToken(token)
	a.api.Pages = adminpage.Pages()
	a.server = a.api.NewServer()
	inHall(a.server)
	for _, address := range file.Admin.Address {
		ln := passed[address]
		delete(passed, address)
		if ln == nil {
			if ln, err = openDoor(ctx, address, file.User, token != ""); err != nil {
				a.stop()
				return nil, fmt.Errorf("admin: %w", err)
			}
		}
		a.doors = append(a.doors, door{address, ln})
	}
	return a, nil
}

// openDoor listens at an address. The file of a unix socket is its user's alone.
func openDoor(ctx context.Context, address, userName string, guarded bool) (net.Listener, error) {
	addr, err := proxy.ParseAddr(address)
	if err != nil {
		return nil, err // the configuration was checked
	}
	ln, err := listenPrivately(ctx, addr)
	if err != nil {
		return nil, err
	}
	switch bound := ln.Addr().(type) {
	case *net.TCPAddr:
		if !guarded && !bound.IP.IsLoopback() {
			err = fmt.Errorf("%s is %s: whoever can reach it could do anything: want admin.token_file", address, bound)
		}
	case *net.UnixAddr:
		if !strings.HasPrefix(addr.Address, "@") {
			err = ownSocket(addr.Address, userName)
		}
	}
	if err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

// listenPrivately listens; the file of a unix socket is never anybody else's, whatever the
// umask: who connects before its mode is set is answered like all others.
func listenPrivately(ctx context.Context, addr proxy.Addr) (net.Listener, error) {
	if addr.Network == "unix" {
		defer privately()()
	}
	return proxy.Listen(ctx, addr, proxy.SocketOptions{})
}

func ownSocket(path, userName string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	who, err := lookUp(userName)
	if err != nil || who == nil {
		return err
	}
	return os.Chown(path, who.UID, who.GID)
}

// readToken reads the word that operators must know; "" for none.
func readToken(a *config.Admin, log *slog.Logger) (string, error) {
	token, mode, err := a.ReadToken()
	if err != nil {
		return "", fmt.Errorf("admin: %w", err)
	}
	if mode.Perm()&0o007 != 0 {
		log.Warn("admin: anybody may read the token", "token_file", a.TokenFile, "mode", mode.Perm().String())
	}
	return token, nil
}

// removeWith has the file of a socket that has come with an upgrade removed with it:
// it is this process's now.
func removeWith(ln net.Listener) {
	if u, ok := ln.(interface{ SetUnlinkOnClose(bool) }); ok && proxy.SocketPath(ln) != "" {
		u.SetUnlinkOnClose(true)
	}
}

func (a *admin) serve(log *slog.Logger) {
	a.served = true
	for _, d := range a.doors {
		removeWith(d.ln)
		h := newHall(d.ln)
		a.halls = append(a.halls, h)
		a.serving.Go(func() { _ = a.server.Serve(h) }) // until stop or leave
		log.Info("admin", "address", listenAddr(d.ln.Addr()))
	}
}

func (a *admin) stop() {
	if !a.served {
		for _, d := range a.doors {
			_ = d.ln.Close()
		}
		return
	}
	a.api.Stop()
	_ = a.server.Close()
	a.serving.Wait()
}

// close lets in nobody who has not come yet: another process, which has the sockets too, does.
func (a *admin) close() {
	a.closed.Do(func() {
		for _, d := range a.doors {
			if u, ok := d.ln.(interface{ SetUnlinkOnClose(bool) }); ok {
				u.SetUnlinkOnClose(false)
			}
			_ = d.ln.Close()
		}
	})
}

// leave lets another process answer. Who has asked is answered, and so is who has come, and is just
// asking: Shutdown says nothing to those whose question it finds half read.
func (a *admin) leave() {
	a.close()
	for _, h := range a.halls {
		_ = h.Close()
	}
	a.serving.Wait()
	late := time.Now().Add(askSoon)
	for _, h := range a.halls {
		h.awaitQuestions(late)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if a.server.Shutdown(ctx) != nil {
		_ = a.server.Close()
	}
}

// askSoon is how long those who have come may take to ask when a process leaves.
const askSoon = 100 * time.Millisecond
