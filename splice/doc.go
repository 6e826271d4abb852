// Package splice joins two connections so that what one sends reaches the
// other, inside the Linux kernel where that is possible.
//
// This is a complete TCP proxy:
//
//	package main
//
//	import (
//		"context"
//		"log"
//		"net"
//
//		"github.com/spliced-io/spliced/splice"
//	)
//
//	func main() {
//		ln, err := net.Listen("tcp", "127.0.0.1:8080")
//		if err != nil {
//			log.Fatal(err)
//		}
//		for {
//			client, err := ln.Accept()
//			if err != nil {
//				log.Fatal(err)
//			}
//			go serve(client)
//		}
//	}
//
//	func serve(client net.Conn) {
//		defer client.Close()
//		server, err := net.Dial("tcp", "127.0.0.1:5432")
//		if err != nil {
//			log.Print(err)
//			return
//		}
//		defer server.Close()
//		result, err := splice.Relay(context.Background(), client, server)
//		log.Print(result, " ", err)
//	}
//
// # What a relay promises
//
// Both directions run at once and end one by one. A FIN is forwarded after
// every byte before it, and the other direction goes on. A reset of one side
// reaches the other as a reset, after the bytes that came before it. A slow
// receiver slows its sender: at most one pipe (or one copy buffer) is held per
// direction, and nothing at all while no bytes are on the way. Limits end a
// direction without losing a byte: what was not forwarded is still readable on
// the connection, or is returned in [End.Undelivered].
//
// # Ownership
//
// While two connections are joined, nobody else may read from them or write to
// them. When a session has ended they belong to the caller again, who closes
// them. With [Own] the session takes them over for good, which costs one
// descriptor a connection instead of two and keeps Go's network poller out of
// the data path: what a server with many connections wants.
//
// # Engines
//
// Linux has two ways of moving the bytes: reading and writing them
// ([EngineCopy]), and moving references to the kernel's own pages through a
// pipe with splice(2) ([EngineSplice]). [EngineAuto] uses whichever suits the
// traffic of the moment. [Session.Stats] says which one is at work, and why.
// Connections without a descriptor (crypto/tls, [net.Pipe]) and other systems
// than Linux are carried by reading and writing.
package splice
