// Package proxy is a TCP and unix-socket proxy to embed: it accepts, dials one
// of several targets and joins the two inside the kernel, by package splice.
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
//		ctx := context.Background()
//		ln, err := proxy.Listen(ctx, proxy.Addr{Network: "tcp", Address: "127.0.0.1:8080"})
//		if err != nil {
//			log.Fatal(err)
//		}
//		s := &proxy.Server{
//			Targets: []proxy.Addr{{Network: "tcp", Address: "127.0.0.1:5432"}},
//		}
//		log.Fatal(s.Serve(ln))
//	}
//
// A joined pair costs two descriptors and a few hundred bytes. There is no
// goroutine for it, no pipe and no buffer while no bytes are on the way.
package proxy
