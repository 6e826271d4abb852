package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

func ExampleServer() {
	// What is to be reached: it says hello and ends.
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Close()
	go func() {
		c, err := backend.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "hello")
		_ = c.Close()
	}()

	ctx := context.Background()
	ln, err := proxy.Listen(ctx, proxy.Addr{Network: "tcp", Address: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	s := &proxy.Server{
		Targets: []proxy.Addr{{Network: "tcp", Address: backend.Addr().String()}},
		Options: []splice.Option{splice.IdleTimeout(time.Hour)},
		Hooks: proxy.Hooks{Ended: func(e proxy.Ended) {
			fmt.Println(e.Result.BToA.Bytes, "bytes to the client,", e.Result.BToA.Reason)
		}},
	}
	wait, err := s.Start(ln)
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = wait() }()

	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	b, err := io.ReadAll(client)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", b)
	_ = client.Close()
	if err := s.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// hello
	// 5 bytes to the client, eof
}
