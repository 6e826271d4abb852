package main

import (
	"context"
	"net"

	"github.com/spliced-io/spliced/proxy"
)

// listenArg is an address to listen on, or "systemd".
type listenArg struct {
	addr    proxy.Addr
	systemd bool
}

func (l *listenArg) UnmarshalText(text []byte) (err error) {
	if string(text) == "systemd" {
		l.systemd = true
		return nil
	}
	l.addr, err = proxy.ParseAddr(string(text))
	return err
}

// open returns the sockets that systemd passed, whatever the address says: it
// has bound them, so nobody else can. Otherwise it binds the address.
func (l *listenArg) open(ctx context.Context, env lookupEnv, pid int) ([]net.Listener, error) {
	passed, err := activated(env, pid)
	if err != nil {
		return nil, err
	}
	if len(passed) > 0 {
		return passed, nil
	}
	if l.systemd {
		return nil, errNotActivated
	}
	ln, err := proxy.Listen(ctx, l.addr)
	if err != nil {
		return nil, err
	}
	return []net.Listener{ln}, nil
}
