package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/internal/testnet"
)

// Whoever can connect to an address for operators or for Prometheus can't take the
// descriptors away that clients need, whether he says nothing, half of something, or asks and
// stays; nor keep an operator out who comes by the other address, or comes later.
func TestAdminCrowd(t *testing.T) {
	testnet.Leaks(t)
	d := runOperated(t, "metrics: 127.0.0.1:0\n")
	_, page, _ := strings.Cut(d.stderr.await(t, "msg=metrics"), "url=http://")
	metrics, _, _ := strings.Cut(page, "/")
	before := descriptors(t, d.cmd.Process.Pid)
	const crowd = 1000
	says := []string{
		"", "GET /v1/st", "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n",
		"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n",
	}
	var mu sync.Mutex
	var all []net.Conn
	var coming sync.WaitGroup
	for i := range crowd {
		coming.Go(func() {
			addr := d.tcp
			if i%5 == 0 {
				addr = metrics
			}
			c, err := net.DialTimeout("tcp", addr, patience)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, says[i/5%len(says)])
			mu.Lock()
			defer mu.Unlock()
			all = append(all, c)
		})
	}
	coming.Wait()
	// The others wait in the kernel: it takes as many of them as there is room for.
	eventually(t, func() error {
		if n := descriptors(t, d.cmd.Process.Pid); n < before+hallRoom {
			return fmt.Errorf("%d descriptors, %d before", n, before)
		}
		return nil
	})
	c, err := net.DialTimeout("tcp", d.addr(t, "web"), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	echo1(t, c, "a client is served")
	if s := d.status(t); s.Open != 1 { // by the unix socket
		t.Errorf("%d connections are open", s.Open)
	}
	// The client's pair, and the operator just now.
	if n := descriptors(t, d.cmd.Process.Pid); n > before+2*hallRoom+3 {
		t.Errorf("%d descriptors with a crowd of %d, %d before", n, crowd, before)
	}
	_ = c.Close()
	for _, c := range all {
		_ = c.Close()
	}
	var s adminapi.Status
	if err := (&adminapi.Client{Address: d.tcp}).Get(t.Context(), "/v1/status", nil, &s); err != nil {
		t.Errorf("when they have left: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
	eventually(t, func() error {
		if n := descriptors(t, d.cmd.Process.Pid); n > before+3 {
			return fmt.Errorf("%d descriptors when they have left, %d before", n, before)
		}
		return nil
	})
	d.stop(t)
}

// A crowd that has nothing to ask keeps no operator out of the only address that he can reach, be it
// from where he is or from somewhere else; and sends nobody away who is being answered.
func TestCrowdWithoutQuestions(t *testing.T) {
	testnet.Leaks(t)
	for name, from := range map[string]string{"from the same address": "127.0.0.1", "from another": "127.0.0.2"} {
		t.Run(name, func(t *testing.T) {
			d := runOperated(t, "")
			client := &adminapi.Client{Address: d.tcp}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			told, watching := make(chan struct{}, 1), make(chan struct{})
			go func() {
				defer close(watching)
				err := client.Watch(ctx, 100*time.Millisecond, 0, func([]byte) error {
					select {
					case told <- struct{}{}:
					default:
					}
					return nil
				})
				if ctx.Err() == nil {
					t.Errorf("who watches is sent away: %v", err)
				}
			}()
			<-told
			const crowd = 10 * hallRoom // these would have had 100 s
			dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			for i := range crowd {
				c, err := dialer.Dial("tcp", d.tcp)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, _ = io.WriteString(c, []string{"", "GET /v1/st"}[i%2]) // it may be sent away already
			}
			for range 10 {
				asking, done := context.WithTimeout(t.Context(), patience)
				var s adminapi.Status
				err := client.Get(asking, "/v1/status", nil, &s)
				done()
				if err != nil {
					t.Fatalf("an operator is not answered: %v", err)
				}
			}
			select { // what was told before the crowd came is out by now
			case <-told:
			default:
			}
			<-told
			cancel()
			<-watching
			http.DefaultClient.CloseIdleConnections()
			d.stop(t)
		})
	}
}

// Those who were answered and ask nothing more make room for who comes.
func TestIdleAskersMakeRoom(t *testing.T) {
	testnet.Leaks(t)
	d := runOperated(t, "")
	for i := range 3 * hallRoom {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		c, err := new(net.Dialer).DialContext(ctx, "unix", d.socket)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience / 2)) // less than a server leaves an idle one
		if _, err := io.WriteString(c, "GET /v1/log-level HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		_ = answer.Body.Close()
	}
	d.stop(t)
}
