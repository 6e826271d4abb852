package main

import (
	"context"
	"net"

	"github.com/spliced-io/spliced/splice"
)

// tryEngine joins a pair of connections to this very machine, so that an
// engine that can't run here is an error before the first client comes.
func tryEngine(engine splice.Engine) error {
	if engine == splice.EngineAuto {
		return nil
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil // no loopback to try it on: the first client will tell
	}
	defer ln.Close()
	var conns [2]net.Conn
	for i := range conns {
		if conns[i], err = net.Dial("tcp", ln.Addr().String()); err != nil {
			return nil
		}
		defer conns[i].Close()
	}
	session, err := splice.Start(conns[0], conns[1], splice.Use(engine))
	if err != nil {
		return err
	}
	_, _ = session.Stop(context.Background()) // nothing is on the way
	return nil
}
