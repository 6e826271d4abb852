// Package proxy is a TCP and unix-socket proxy to embed: it accepts, chooses one
// of several servers, connects to it and joins the two inside the kernel, by
// package splice.
//
// This is a complete program:
//
//	package main
//
//	import (
//		"context"
//		"log"
//
//		"github.com/spliced-io/spliced/proxy"
//	)
//
//	func main() {
//		s := &proxy.Server{Config: proxy.Config{
//			Listeners: map[string]proxy.Listener{"db": {Address: []string{":5432"}, Upstream: "db"}},
//			Upstreams: map[string]proxy.Upstream{"db": {Servers: proxy.Targets("10.0.0.1:5432", "10.0.0.2:5432")}},
//		}}
//		log.Fatal(s.Run(context.Background()))
//	}
//
// The way of a connection: a listener accepts it ([Listener]); its first route
// that matches names an upstream ([Route]); the upstream's balancer names the
// servers to try ([Upstream]); the first that answers is joined with the client.
// Where nothing has to be waited for, the event loops that move the bytes do all
// of it. Else a goroutine does: to wait in a queue, say.
//
// A joined pair costs two descriptors and a few hundred bytes. There is no
// goroutine for it, no pipe and no buffer while no bytes are on the way.
package proxy
