package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// A connection whose process has gone is, in the next one, what it was: its listener's, its server's
// and its client's, as far as the configuration has them.
func TestAdoptedPlaces(t *testing.T) {
	const patience = 30 * time.Second
	testnet.Need(t, "root", "bpf")
	target := testnet.Echo(t, "tcp", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(target)
	config := func(listener, upstream, server string) Config {
		return Config{
			Listeners: map[string]Listener{listener: {Address: []string{"127.0.0.1:0"}, Upstream: upstream, Engine: splice.EngineWire, MaxConnectionsPerClient: 1}},
			Upstreams: map[string]Upstream{upstream: {Servers: Targets(server), OnRemoved: CloseSessions}},
		}
	}
	for _, test := range []struct {
		name   string
		first  string // the server
		second Config
		server string // its name
		known  bool   // in the second configuration
		cut    bool
	}{
		{"nothing has changed", target, config("l", "u", target), target, true, false},
		{"a server by name", "localhost:" + port, config("l", "u", "localhost:"+port), "localhost:" + port + "=" + target, true, false},
		{"the server is gone", target, config("l", "u", "127.0.0.1:1"), target, false, true},
		{"all of it is gone", target, config("other", "another", "127.0.0.1:1"), target, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			testnet.Leaks(t)
			policy := splice.WirePolicy{Upgrade: true, Instance: "test", Root: testnet.BPFFS(t)}
			start := func(c Config, hooks Hooks) *Server {
				s := &Server{Config: c, Wire: policy, Hooks: hooks}
				t.Cleanup(func() {
					_ = s.Close()
					withoutInstance(t, policy) // before the file system goes
				})
				if err := s.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				return s
			}
			before := start(config("l", "u", test.first), Hooks{})
			client, err := net.DialTimeout("tcp", before.Addrs("l")[0].String(), patience)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_ = client.SetDeadline(time.Now().Add(2 * patience))
			ping := func() {
				t.Helper()
				b := make([]byte, 4)
				_, err := io.WriteString(client, "ping")
				if err == nil {
					_, err = io.ReadFull(client, b)
				}
				if err != nil || string(b) != "ping" {
					t.Fatalf("%q, %v", b, err)
				}
			}
			for end := time.Now().Add(patience); before.Stats().Wire.Flows < 1; ping() {
				if time.Now().After(end) {
					t.Fatal("not spliced")
				}
			}
			before.Leave()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := errors.Join(before.Shutdown(ctx), before.Close()); err != nil {
				t.Fatal(err)
			}

			ended := make(chan Ended, 10)
			end := func() (e Ended) {
				t.Helper()
				select {
				case e = <-ended:
				case <-ctx.Done():
					t.Fatal("it has not ended")
				}
				return e
			}
			s := start(test.second, Hooks{Ended: func(e Ended) { ended <- e }})
			if test.cut {
				if e := end(); e.Listener != "l" || e.Server != test.server || e.Cut != CutRemoved {
					t.Errorf("%+v", e)
				}
				if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the client: %v", err)
				}
				return
			}
			all := s.Connections()
			if len(all) != 1 {
				t.Fatalf("%d connections", len(all))
			}
			if c := all[0]; c.Listener != "l" || c.Route == "" || c.Upstream != "u" || c.Server != test.server || c.Client != client.LocalAddr().String() || c.Target != target {
				t.Errorf("%+v", c)
			}
			ping()
			if test.known {
				if server := s.Upstreams()[0].Servers[0]; server.Active != 1 || server.Name != test.server {
					t.Errorf("the server is %+v", server)
				}
				if l := s.Listeners()[0]; l.Stats.Open != 1 || l.Stats.Joined != 1 {
					t.Errorf("the listener is %+v", l)
				}
				// He has all that he may.
				again, err := net.DialTimeout("tcp", s.Addrs("l")[0].String(), patience)
				if err == nil {
					defer again.Close()
					_ = again.SetDeadline(time.Now().Add(patience))
					_, err = again.Read(make([]byte, 1))
				}
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("another of the client: %v", err)
				}
			}
			if err := client.(*net.TCPConn).CloseWrite(); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadAll(client); err != nil {
				t.Error(err)
			}
			if e := end(); e.Listener != "l" || e.Server != test.server || e.Cut != "" {
				t.Errorf("%+v", e)
			}
		})
	}
}
