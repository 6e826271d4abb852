package main

import "github.com/spliced-io/spliced/proxy"

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
