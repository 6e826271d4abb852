package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/spliced-io/spliced/proxy"
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
	s := &proxy.Server{
		Config: proxy.Config{
			Listeners: map[string]proxy.Listener{"hello": {Address: []string{"127.0.0.1:0"}, Upstream: "hello"}},
			Upstreams: map[string]proxy.Upstream{"hello": {Servers: proxy.Targets(backend.Addr().String())}},
		},
		Hooks: proxy.Hooks{Ended: func(e proxy.Ended) {
			fmt.Println(e.Result.BToA.Bytes, "bytes to the client,", e.Result.BToA.Reason)
		}},
	}
	if err := s.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	client, err := net.Dial("tcp", s.Addrs("hello")[0].String())
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
