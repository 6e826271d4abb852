package proxy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// A generation is one server of a succession.
type generation struct {
	*proxy.Server
	inherited chan proxy.Inherited
	ended     chan proxy.Ended
	failed    chan proxy.Failed
}

func newGeneration(t *testing.T, c proxy.Config) *generation {
	t.Helper()
	g := &generation{inherited: make(chan proxy.Inherited, 1), ended: make(chan proxy.Ended, 10_000), failed: make(chan proxy.Failed, 10_000)}
	g.Server = &proxy.Server{Config: c, Hooks: proxy.Hooks{
		Inherited: func(i proxy.Inherited) { g.inherited <- i },
		Ended:     func(e proxy.Ended) { g.ended <- e },
		Failed:    func(f proxy.Failed) { g.failed <- f },
	}}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// agree has the next of that configuration accept in g's place.
func (g *generation) agree(ctx context.Context, t *testing.T, c proxy.Config) (next *generation, s *proxy.Succession) {
	t.Helper()
	near, far := testnet.UnixPair(t)
	next = newGeneration(t, c)
	started := make(chan error, 1)
	go func() {
		i, err := proxy.Inherit(ctx, far)
		if err == nil {
			next.Inheritance = i
			err = next.Start(ctx)
		}
		started <- err
	}()
	s, err := g.HandOver(ctx, near, proxy.Baggage{}, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return next, s
}

// succeed has g hand over to the next of that configuration. What is left of g
// is closed, unless stay says that something is.
func (g *generation) succeed(t *testing.T, c proxy.Config) (next *generation, moved int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next, s := g.agree(ctx, t, c)
	moved, err := s.Move(ctx)
	if err != nil {
		t.Error(err)
	}
	return next, moved
}

func (g *generation) addr(t *testing.T, listener string) string {
	t.Helper()
	addrs := g.Addrs(listener)
	if len(addrs) != 1 {
		t.Fatalf("listener %s is at %v", listener, addrs)
	}
	return addrs[0].String()
}

// echoServer sends back what it is sent, and closes when it is closed.
func echoServer(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(2 * patience))
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// echo sends size bytes through addr and checks what comes back.
func echo(addr string, size int) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for i := 0; i < len(data); i += 4 {
		data[i] = byte(r.Uint32())
	}
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		if err == nil {
			err = c.(*net.TCPConn).CloseWrite()
		}
		sent <- err
	}()
	h := sha256.New()
	n, err := io.Copy(h, c)
	if err = errors.Join(err, <-sent); err != nil {
		return err
	}
	if want := sha256.Sum256(data); n != int64(size) || !bytes.Equal(h.Sum(nil), want[:]) {
		return fmt.Errorf("%d of %d bytes came back, or others", n, size)
	}
	return nil
}

func echoConfig(target string, engine splice.Engine) proxy.Config {
	return proxy.Config{
		Listeners: map[string]proxy.Listener{"relay": {Address: []string{"127.0.0.1:0"}, Upstream: "echo", Engine: engine}},
		Upstreams: map[string]proxy.Upstream{"echo": {Servers: proxy.Targets(target)}},
	}
}

// Generation after generation takes over sessions in mid-transfer, while others
// come and go: not a byte is lost, and nobody is turned away. Each byte is in the counts of one
// of them.
func TestHandOverUnderLoad(t *testing.T) {
	for _, engine := range []splice.Engine{splice.EngineAuto, splice.EngineCopy} {
		t.Run(engine.String(), func(t *testing.T) {
			testnet.Leaks(t)
			c := echoConfig(echoServer(t), engine)
			g := newGeneration(t, c)
			if err := g.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			addr := g.addr(t, "relay")
			var wg sync.WaitGroup
			for range 30 {
				wg.Go(func() {
					if err := echo(addr, 8<<20); err != nil {
						t.Errorf("long: %v", err)
					}
				})
			}
			var stop atomic.Bool
			var short atomic.Int64
			for range 4 {
				wg.Go(func() {
					for !stop.Load() {
						if err := echo(addr, 1000); err != nil {
							t.Errorf("short: %v", err)
							return
						}
						short.Add(1)
					}
				})
			}
			all := 0
			var counted [3]proxy.Stats // by server, listener and target
			count := func() {
				listener, target := g.Listeners()[0], g.Upstreams()[0].Servers[0]
				for i, st := range []proxy.Stats{g.Stats(), listener.Stats, {BytesToTarget: target.BytesToServer, BytesToClient: target.BytesToClient}} {
					counted[i].BytesToTarget += st.BytesToTarget
					counted[i].BytesToClient += st.BytesToClient
				}
			}
			for range 6 {
				before := g.Stats()
				next, moved := g.succeed(t, c)
				if st := g.Stats(); st.Open != 0 || st.BytesToTarget < before.BytesToTarget || st.BytesToClient < before.BytesToClient {
					t.Errorf("%+v are left behind of %+v", st, before)
				}
				if err := g.Close(); err != nil {
					t.Error(err)
				}
				count()
				if i := receive(t, next.inherited, "the end of the hand-over"); i.Connections != moved || i.Lost != 0 || i.Err != nil {
					t.Errorf("%d were handed over, and taken: %+v", moved, i)
				}
				for len(g.failed) > 0 {
					t.Errorf("not joined: %+v", <-g.failed)
				}
				g, all = next, all+moved
				if again := g.addr(t, "relay"); again != addr {
					t.Errorf("it listens at %s, before at %s", again, addr)
				}
			}
			stop.Store(true)
			wg.Wait()
			if all == 0 || short.Load() == 0 {
				t.Errorf("%d hand-overs of connections, %d short conversations", all, short.Load())
			}
			t.Logf("%d hand-overs of connections, %d short conversations", all, short.Load())
			_ = g.Close()
			count()
			for i, st := range counted {
				if want := 30*8<<20 + 1000*short.Load(); st.BytesToTarget != want || st.BytesToClient != want {
					t.Errorf("%d: all together have counted %d and %d bytes, want %d", i, st.BytesToTarget, st.BytesToClient, want)
				}
			}
		})
	}
}

// A client that comes in the moment of the hand-over is served though no other
// comes after it: the one that the kernel woke for it has to take it.
func TestHandOverLastClient(t *testing.T) {
	testnet.Leaks(t)
	c := echoConfig(echoServer(t), splice.EngineCopy)
	g := newGeneration(t, c)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	addr := g.addr(t, "relay")
	rounds := 60
	if testing.Short() {
		rounds = 5
	}
	for i := range rounds {
		var over atomic.Bool
		done := make(chan error, 1)
		go func() {
			for {
				last := over.Load()
				if err := echo(addr, 10); err != nil || last {
					done <- err
					return
				}
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		next, s := g.agree(ctx, t, c)
		over.Store(true)
		if err := <-done; err != nil {
			t.Fatalf("hand-over %d: %v", i, err)
		}
		if _, err := s.Move(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		receive(t, next.inherited, "the end of the hand-over")
		g = next
	}
	_ = g.Close()
}

// Until the connections have come, the next process keeps off the local ports that they
// have: of those that the engine wire carries the kernel does not know.
func TestHandOverKeepsOffPorts(t *testing.T) {
	testnet.Leaks(t)
	target := echoServer(t)
	c := echoConfig(target, splice.EngineCopy)
	g := newGeneration(t, c)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := net.DialTimeout("tcp", g.addr(t, "relay"), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(patience))
	send(t, client, "hello")
	expect(t, client, "hello")
	local := g.Connections()[0].Local.Port()
	// What a dialer of this process may take: 0 is any port.
	ports := func() (low, high uint16) {
		t.Helper()
		const ipLocalPortRange = 51
		d := net.Dialer{Control: func(network, address string, c syscall.RawConn) error {
			err := splice.DialControl(network, address, c)
			return errors.Join(err, c.Control(func(fd uintptr) {
				n, e := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_IP, ipLocalPortRange)
				if e != nil {
					t.Error(e)
				}
				low, high = uint16(n), uint16(n>>16)
			}))
		}}
		conn, err := d.Dial("tcp", target)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		return low, high
	}
	if low, high := ports(); low != 0 || high != 0 {
		t.Errorf("before the hand-over ports are %d to %d", low, high)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next, s := g.agree(ctx, t, c)
	for range 20 {
		if low, high := ports(); low == 0 || low <= local && local <= high {
			t.Errorf("while %d is another's ports are %d to %d", local, low, high)
		}
	}
	if moved, err := s.Move(ctx); err != nil || moved != 1 {
		t.Errorf("%d were handed over, %v", moved, err)
	}
	receive(t, next.inherited, "the end of the hand-over")
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if low, _ := ports(); low == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("after the hand-over ports are still bounded")
		}
	}
	_ = g.Close()
	_ = next.Close()
}

// What is known of a connection goes along: who it is, its bytes, its place among
// those of its client and of its server.
func TestHandOverKeepsWhatIsKnown(t *testing.T) {
	testnet.Leaks(t)
	c := echoConfig(echoServer(t), splice.EngineAuto)
	l := c.Listeners["relay"]
	l.MaxConnectionsPerClient = 1
	l.Limits.BytesToServer = 10
	c.Listeners["relay"] = l
	g := newGeneration(t, c)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.SetWeight("echo", c.Upstreams["echo"].Servers[0].Address, 7); err != nil {
		t.Fatal(err)
	}
	client, err := net.DialTimeout("tcp", g.addr(t, "relay"), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(patience))
	send(t, client, "hello")
	expect(t, client, "hello")
	before := g.Connections()
	if len(before) != 1 {
		t.Fatalf("connections: %+v", before)
	}
	for range 2 {
		next, _ := g.succeed(t, c)
		receive(t, next.inherited, "the end of the hand-over")
		_ = g.Close()
		g = next
	}
	after := g.Connections()
	if len(after) != 1 {
		t.Fatalf("connections: %+v", after)
	}
	b, a := before[0], after[0]
	if a.ID != b.ID || a.Client != b.Client || a.Target != b.Target || a.Server != b.Server || a.Route != b.Route || a.Local != b.Local ||
		a.Stats.AToB.Bytes != 5 || a.Stats.BToA.Bytes != 5 || a.Stats.Started.Sub(b.Stats.Started).Abs() > time.Second {
		t.Errorf("before %+v\nafter  %+v", b, a)
	}
	servers := g.Upstreams()[0].Servers
	if servers[0].Active != 1 || servers[0].Weight != 7 || !servers[0].Steered {
		t.Errorf("server %+v", servers[0])
	}
	other, err := net.DialTimeout("tcp", g.addr(t, "relay"), patience)
	if err == nil {
		_ = other.SetDeadline(time.Now().Add(patience))
		_, err = other.Read(make([]byte, 1))
		_ = other.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a second connection of the client: %v, want a reset", err)
	}
	send(t, client, "hello again")
	expect(t, client, "hello")
	_ = g.Close()
	if e := receive(t, g.ended, "the end"); e.Result.AToB.Bytes != 10 || e.Result.AToB.Reason != splice.Max || e.ID != b.ID {
		t.Errorf("ended %+v", e)
	}
}

// A unix socket's file stays, and goes with the last generation; a listener and a
// server that the next configuration does not have go as a reload would have it.
func TestHandOverToAnotherConfiguration(t *testing.T) {
	testnet.Leaks(t)
	dir := t.TempDir()
	kept, gone := filepath.Join(dir, "kept"), filepath.Join(dir, "gone")
	target := echoServer(t)
	c := proxy.Config{
		Listeners: map[string]proxy.Listener{
			"kept": {Address: []string{"unix:" + kept}, Upstream: "echo"},
			"gone": {Address: []string{"unix:" + gone}, Upstream: "other"},
		},
		Upstreams: map[string]proxy.Upstream{"echo": {Servers: proxy.Targets(target)}, "other": {Servers: proxy.Targets(target)}},
	}
	g := newGeneration(t, c)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var clients []net.Conn
	for _, path := range []string{kept, gone} {
		client, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		_ = client.SetDeadline(time.Now().Add(patience))
		send(t, client, "one")
		expect(t, client, "one")
		clients = append(clients, client)
	}
	d := proxy.Config{
		Listeners: map[string]proxy.Listener{"kept": c.Listeners["kept"]},
		Upstreams: map[string]proxy.Upstream{"echo": {Servers: proxy.Targets(echoServer(t)), OnRemoved: proxy.CloseSessions}},
	}
	next, moved := g.succeed(t, d)
	receive(t, next.inherited, "the end of the hand-over")
	_ = g.Close()
	if moved != 2 {
		t.Errorf("%d were handed over", moved)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of a listener that is gone: %v", err)
	}
	if n, err := clients[0].Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes of a server that is not configured any more", n)
	}
	send(t, clients[1], "two") // its upstream is gone altogether: it goes on
	expect(t, clients[1], "two")
	_ = next.Close()
	if _, err := os.Stat(kept); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of the last: %v", err)
	}
}

// Whatever goes wrong in the next process, this one goes on as if nothing was.
func TestHandOverRefused(t *testing.T) {
	testnet.Leaks(t)
	c := echoConfig(echoServer(t), splice.EngineAuto)
	g := newGeneration(t, c)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	addr := g.addr(t, "relay")
	client, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(2 * patience))
	send(t, client, "hello")
	expect(t, client, "hello")

	failing := func(edit func(*proxy.Server), c proxy.Config) func(context.Context, *net.UnixConn) {
		return func(ctx context.Context, far *net.UnixConn) {
			next := newGeneration(t, c)
			i, err := proxy.Inherit(ctx, far)
			if err != nil {
				t.Error(err)
				return
			}
			next.Inheritance = i
			edit(next.Server)
			if err := next.Start(ctx); err == nil {
				t.Error("it has started")
			}
		}
	}
	other := echoConfig("127.0.0.1:1", splice.EngineAuto)
	other.Listeners["more"] = proxy.Listener{Address: []string{addr}, Upstream: "echo"}
	options := echoConfig("127.0.0.1:1", splice.EngineAuto)
	l := options.Listeners["relay"]
	l.Socket.Backlog = 5
	options.Listeners["relay"] = l
	short := 200 * time.Millisecond
	for _, test := range []struct {
		name    string
		within  time.Duration
		process func(context.Context, *net.UnixConn)
		want    string
	}{
		{"ends", 0, func(_ context.Context, far *net.UnixConn) { _ = far.Close() }, "has ended before it was ready"},
		{"knows nothing of it", short, func(ctx context.Context, _ *net.UnixConn) { <-ctx.Done() }, "deadline exceeded"},
		{"answers nonsense", 0, func(_ context.Context, far *net.UnixConn) {
			_, _ = io.WriteString(far, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = far.Close()
		}, "no message of spliced"},
		{"refuses", 0, func(ctx context.Context, far *net.UnixConn) {
			i, err := proxy.Inherit(ctx, far)
			if err != nil {
				t.Error(err)
				return
			}
			i.Refuse(errors.New("the file is wrong"))
		}, "refuses: the file is wrong"},
		{"can't bind", 0, failing(func(*proxy.Server) {}, other), "address already in use"},
		{"has other options", 0, failing(func(*proxy.Server) {}, options), "socket options"},
		{"fails before it accepts", 0, failing(func(s *proxy.Server) { s.BeforeAccept = func() error { return errors.New("no rights") } }, c), "no rights"},
		{"closes when it is ready", 0, func(ctx context.Context, far *net.UnixConn) {
			i, err := proxy.Inherit(ctx, far)
			if err != nil {
				t.Error(err)
				return
			}
			next := newGeneration(t, c)
			next.Inheritance = i
			next.BeforeAccept = func() error {
				_ = far.Close() // as a crash does
				return nil
			}
			if err := next.Start(ctx); err == nil {
				t.Error("it has started")
			}
		}, "has ended before it was ready"},
	} {
		t.Run(test.name, func(t *testing.T) {
			within := test.within
			if within == 0 {
				within = patience
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			near, far := testnet.UnixPair(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				test.process(ctx, far)
			}()
			_, err := g.HandOver(ctx, near, proxy.Baggage{}, "test")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			<-done
			send(t, client, "still here")
			expect(t, client, "still here")
			if err := echo(addr, 1000); err != nil {
				t.Error(err)
			}
		})
	}
	_ = g.Close()
}

// A process that dies while it takes connections over leaves the others with the
// one before.
func TestHandOverToOneThatDies(t *testing.T) {
	testnet.Leaks(t)
	c := echoConfig(echoServer(t), splice.EngineAuto)
	g := newGeneration(t, c)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	addr := g.addr(t, "relay")
	var clients []net.Conn
	for range 20 {
		client, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		_ = client.SetDeadline(time.Now().Add(patience))
		send(t, client, "hello")
		expect(t, client, "hello")
		clients = append(clients, client)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next, s := g.agree(ctx, t, c)
	_ = next.Close()
	moved, err := s.Move(ctx)
	if err == nil || moved != 0 {
		t.Errorf("%d were handed over, %v", moved, err)
	}
	for _, client := range clients {
		send(t, client, "still here")
		expect(t, client, "still here")
	}
	if st := g.Stats(); st.Open != len(clients) || st.Joined != len(clients) {
		t.Errorf("stats %+v", st)
	}
	_ = g.Close()
}

// Where no name server answers the new process, the servers of a name are not gone: their connections go on,
// and what is known of them holds, at once for those that have connections, and for the others
// once the name is resolved, also if that is one process later.
func TestHandOverBeforeNames(t *testing.T) {
	testnet.Leaks(t)
	dns := newNameServer(t)
	_, port, _ := net.SplitHostPort(testnet.Echo(t, "tcp", "0.0.0.0:0"))
	at := []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}
	dns.set(t, "db.test.", 1, at[0], at[1], at[2])
	name := "db.test:" + port
	c := proxy.Config{
		Listeners: map[string]proxy.Listener{"l": {Address: []string{"127.0.0.1:0"}, Upstream: "db"}},
		Upstreams: map[string]proxy.Upstream{"db": {
			Servers: proxy.Targets(name), OnRemoved: proxy.CloseSessions,
			Resolve: proxy.Resolve{Servers: []string{dns.addr}, Interval: proxy.Duration(100 * time.Millisecond), Timeout: proxy.Duration(time.Second)},
		}},
	}
	g := newGeneration(t, c)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := func(i int) string { return name + "=" + net.JoinHostPort(at[i], port) }
	if err := g.SetDraining("db", server(2), true); err != nil {
		t.Fatal(err)
	}
	var clients []net.Conn
	for range 2 { // one of each of the others
		client, err := net.DialTimeout("tcp", g.addr(t, "l"), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		_ = client.SetDeadline(time.Now().Add(2 * patience))
		send(t, client, "one")
		expect(t, client, "one")
		clients = append(clients, client)
	}
	if err := g.SetWeight("db", server(1), 7); err != nil {
		t.Fatal(err)
	}
	// states has what is known of each server.
	states := func() string {
		var list []string
		for _, s := range g.Upstreams()[0].Servers {
			list = append(list, fmt.Sprintf("%s active %d weight %d draining %v", s.Name, s.Active, s.Weight, s.Draining))
		}
		slices.Sort(list)
		return strings.Join(list, "\n")
	}
	all := states()
	dns.set(t, "db.test.", 1)
	for range 2 {
		next, moved := g.succeed(t, c)
		receive(t, next.inherited, "the end of the hand-over")
		_ = g.Close()
		g = next
		if moved != 2 {
			t.Errorf("%d were handed over", moved)
		}
		for _, client := range clients {
			send(t, client, "two")
			expect(t, client, "two")
		}
		if want := strings.Join(strings.Split(all, "\n")[:2], "\n"); states() != want {
			t.Errorf("before the name is resolved\n%s\nwant\n%s", states(), want)
		}
	}
	dns.set(t, "db.test.", 1, at[0], at[1], at[2])
	for end := time.Now().Add(patience); states() != all; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("servers\n%s\nwant\n%s", states(), all)
		}
	}
	for _, client := range clients {
		send(t, client, "end")
		expect(t, client, "end")
	}
	_ = g.Close()
}
