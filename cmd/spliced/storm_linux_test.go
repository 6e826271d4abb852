package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A storm is hostile clients, and servers that are no better, at a daemon whose operator
// never rests. Everything that comes by chance comes of the seed; what becomes of it comes of
// the moment too.
type storm struct {
	t      *testing.T
	d      *daemonProcess
	socket string // of the admin API
	page   string // of the metrics
	dir    string
	engine string
	more   string // of each configuration

	// upgrade has another process take the daemon's place. nil: none does
	upgrade func()

	echo, other, rude, inside *stormServer
	refuses, silent           string

	hello  []byte
	opened map[string]*atomic.Int64 // connections of clients, by listener
	exact  struct{ sent, back atomic.Int64 }
}

// stormListeners are those that are there all the time, with what is said to begin with.
var stormListeners = map[string]func(*rand.Rand, *storm) []byte{
	"plain":      stormFirstBytes,
	"few":        stormFirstBytes,
	"slowly":     stormFirstBytes,
	"look":       stormFirstBytes,
	"behind":     stormBehind,
	"terminated": stormFirstBytes,
	"broken":     stormFirstBytes,
	"queue":      stormFirstBytes,
	"rude":       stormFirstBytes,
	"sends":      stormFirstBytes,
	"inside":     stormFirstBytes,
	"rejects":    stormFirstBytes,
	"denied":     stormFirstBytes,
}

// stormConfig is one of the configurations that the operator has in turn.
func (s *storm) config(kind int) string {
	const limits = "limits: {idle: 1500ms, half_close: 400ms, lifetime: 4s}"
	weight, routes, extra, servers := 1+kind%3, "{sni: a.test, upstream: echo}, {sni: \"*.test\", upstream: rude}", "", ""
	if kind%2 == 1 {
		routes = "{protocol: ssh, upstream: echo}, {protocol: postgresql-tls, reject: true}, {protocol: silent, upstream: rude}, " + routes
	}
	if kind%4 == 2 {
		extra = "  extra: {address: 127.0.0.1:0, upstream: echo, " + limits + "}\n"
	}
	if kind%5 < 2 {
		servers = fmt.Sprintf(", {address: %q}", s.refuses) // of those that come and go
	}
	text := s.more + fmt.Sprintf("log: {format: json, start: true, connect: true}\nadmin: unix:%s\nmetrics: 127.0.0.1:0\ndrain: {timeout: 2s}\nlisteners:\n", s.socket)
	listen := func(name, rest string) {
		text += fmt.Sprintf("  %s: {address: 127.0.0.1:0, %s, %s}\n", name, limits, rest)
	}
	engine := "engine: " + s.engine
	text += "  exact: {address: 127.0.0.1:0, upstream: exact, " + engine + "}\n  last: {address: 127.0.0.1:0, upstream: echo, routes: {sni: a.test, upstream: last}, handshake_timeout: 1h}\n"
	listen("plain", "upstream: echo, "+engine)
	listen("few", "upstream: echo, max_connections_per_client: 6, "+engine)
	listen("slowly", "upstream: echo, bandwidth: {to_server: 200KB, to_client: 300KB}")
	listen("look", "handshake_timeout: 300ms, max_connections: 40, upstream: echo, routes: ["+routes+"]")
	listen("behind", "handshake_timeout: 300ms, proxy_from: 127.0.0.0/8, max_connections_per_client: 4, accept_rate_per_client: 100, upstream: echo, routes: ["+routes+"]")
	listen("terminated", fmt.Sprintf("handshake_timeout: 300ms, upstream: inside, tls: {certificates: {certificate: %s/www.pem, key: %s/www.key}, client_certificate: %s, client_ca: %s/www.pem}",
		s.dir, s.dir, []string{"optional", "required"}[kind%2], s.dir))
	listen("broken", "upstream: broken, "+engine)
	listen("queue", "upstream: queue, "+engine)
	listen("rude", "upstream: rude, "+engine)
	listen("sends", "upstream: sends")
	listen("inside", "upstream: inside")
	listen("rejects", "routes: [{source: 127.0.0.2/32, upstream: echo}]")
	listen("denied", "upstream: echo, deny: 127.0.0.0/8")
	text += extra + "upstreams:\n"
	upstream := func(name, servers, rest string) {
		text += fmt.Sprintf("  %s: {servers: [%s], ejection: {off: true}, %s}\n", name, servers, rest)
	}
	upstream("exact", fmt.Sprintf("{address: %q, weight: %d}, %q", s.echo.addr, weight, s.other.addr), "balance: random-two")
	upstream("echo", fmt.Sprintf("{address: %q, weight: %d}, %q%s", s.echo.addr, weight, s.other.addr, servers), "balance: "+[]string{"round-robin", "maglev", "least-connections"}[kind%3])
	upstream("broken", fmt.Sprintf("%q, %q, %q", s.refuses, s.silent, s.echo.addr), "connect_timeout: 100ms, attempts: 3, balance: "+[]string{"first", "round-robin"}[kind%2])
	upstream("queue", fmt.Sprintf("{address: %q, max_connections: 2}, {address: %q, max_connections: 1}", s.echo.addr, s.refuses), "queue: {limit: 4, timeout: 200ms}")
	upstream("last", fmt.Sprintf("%q", s.echo.addr), "max_connections: 2, queue: {timeout: 1h}")
	upstream("rude", fmt.Sprintf("%q", s.rude.addr), "balance: first")
	upstream("sends", fmt.Sprintf("%q, %q", s.rude.addr, s.silent), "send_proxy: v2, connect_timeout: 100ms")
	upstream("inside", fmt.Sprintf("%q", s.inside.addr), "connect_timeout: 500ms, tls: {no_verify: true}")
	return text
}

// newStorm starts it all, and waits for the daemon. more is for each of its configurations.
func newStorm(t *testing.T, engine, more string) *storm {
	t.Helper()
	s := &storm{t: t, engine: engine, more: more, dir: exampleCertificates(t), refuses: closedPort(t), hello: clientHello("a.test"), opened: make(map[string]*atomic.Int64)}
	s.socket = filepath.Join(t.TempDir(), "admin.sock")
	s.silent = testnet.NewSilent(t).Addr
	s.echo, s.other = startStormServer(t, nil, stormEcho), startStormServer(t, nil, stormEcho)
	s.rude = startStormServer(t, nil, stormRude)
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.dir, "www.pem"), filepath.Join(s.dir, "www.key"))
	if err != nil {
		t.Fatal(err)
	}
	s.inside = startStormServer(t, &tls.Config{Certificates: []tls.Certificate{pair}}, stormInside)
	s.d = startDaemon(t, commandWithin(t, stormTime(t)+10*patience, "run"), s.config(0), (*exec.Cmd).Start)
	s.page = parse(t, s.d.stderr.await(t, `"msg":"metrics"`))["url"].(string)
	for name := range stormListeners {
		s.opened[name] = new(atomic.Int64)
	}
	s.opened["exact"] = new(atomic.Int64)
	return s
}

// A stormServer counts what it meets.
type stormServer struct {
	addr                    string
	accepted, read, written atomic.Int64
	open                    atomic.Int64
}

func startStormServer(t *testing.T, session *tls.Config, serve func(*stormServer, net.Conn)) *stormServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stormServer{addr: ln.Addr().String()}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			s.open.Add(1)
			serving.Go(func() {
				defer s.open.Add(-1)
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				if session != nil {
					c = tls.Server(c, session)
				}
				serve(s, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		serving.Wait()
	})
	return s
}

func stormEcho(s *stormServer, c net.Conn) {
	b := make([]byte, 16<<10)
	for {
		n, err := c.Read(b)
		s.read.Add(int64(n))
		if n > 0 {
			var m int
			m, err = c.Write(b[:n])
			s.written.Add(int64(m))
		}
		if err != nil {
			return // the client has left; or all was said
		}
	}
}

// stormRude does what no server should.
func stormRude(s *stormServer, c net.Conn) {
	linger := func() { _ = c.(*net.TCPConn).SetLinger(0) }
	_ = c.SetDeadline(time.Now().Add(time.Second))
	b := make([]byte, 64<<10)
	switch rand.IntN(8) {
	case 0: // resets at once
		linger()
	case 1: // ends at once
	case 2: // says something, and resets
		_, _ = c.Write(b[:rand.IntN(1000)])
		linger()
	case 3: // hears something, and resets
		_, _ = c.Read(b)
		linger()
	case 4: // never reads
		time.Sleep(rand.N(300 * time.Millisecond))
	case 5: // never stops
		for range 8 {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	case 6: // ends its side, and listens
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	default:
		stormEcho(s, c)
	}
}

func stormInside(s *stormServer, c net.Conn) {
	if rand.IntN(6) == 0 {
		return // in the middle of the handshake
	}
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	stormEcho(s, c)
}

// upTo is some time below d.
func upTo(r *rand.Rand, d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }

// garbage is up to n bytes of it.
func garbage(r *rand.Rand, n int) []byte {
	b := make([]byte, r.IntN(n))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// stormFirstBytes are those of some protocol, more or less.
func stormFirstBytes(r *rand.Rand, s *storm) []byte {
	h := s.hello
	switch r.IntN(12) {
	case 0:
		return nil
	case 1:
		return garbage(r, 300)
	case 2:
		return h[:r.IntN(len(h))]
	case 3: // in two records
		at := 6 + r.IntN(len(h)-7)
		return slices.Concat(h[:3], binary.BigEndian.AppendUint16(nil, uint16(at-5)), h[5:at], h[:3], binary.BigEndian.AppendUint16(nil, uint16(len(h)-at)), h[at:])
	case 4:
		return append([]byte{0}, h...)
	case 5: // of SSLv2
		return append([]byte("\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"), garbage(r, 100)...)
	case 6: // a message of 16 MiB
		return append([]byte("\x16\x03\x01\x40\x00\x01\xff\xff\xff"), make([]byte, r.IntN(40<<10))...)
	case 7:
		return []byte("SSH-2.0-storm\r\n")
	case 8:
		return []byte("\x00\x00\x00\x08\x04\xd2\x16\x2f")
	case 9:
		return []byte("GET / HTTP/1.1\r\n\r\n")
	case 10:
		return append(slices.Clone(h), garbage(r, 256<<10)...)
	default:
		return h
	}
}

// stormBehind begins with a PROXY header, more or less.
func stormBehind(r *rand.Rand, s *storm) []byte {
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	v1 := fmt.Sprintf("PROXY TCP4 192.0.2.%d 198.51.100.1 %d 443\r\n", r.IntN(8), 1+r.IntN(65535))
	address := "\xc0\x00\x02" + string([]byte{byte(r.IntN(8))}) + "\xc0\x00\x02\x02\x00\x01\x00\x02"
	var header string
	switch r.IntN(10) {
	case 0:
		header = v2 + "\x21\x11\x00\x0c" + address
	case 1:
		header = v2 + "\x21\x11\x00\x11" + address + "\x04\x00\x02ok" // with a value
	case 2:
		header = v2 + "\x20\x00\x00\x03abc" // LOCAL
	case 3:
		header = "PROXY UNKNOWN whatever\r\n"
	case 4:
		return []byte(v2 + "\x21\x11\x00\x0f" + address + "\x04\xff\xff") // longer than it
	case 5:
		return []byte(v2 + "\x21\x11\xff\xff") // longer than may be
	case 6:
		return []byte(v2 + "\x21\x11\x00\x13" + address + "\x03\x00\x04\x00\x00\x00\x00") // a wrong checksum
	case 7:
		return []byte(v1[:r.IntN(len(v1))])
	default:
		header = v1
	}
	return append([]byte(header), stormFirstBytes(r, s)...)
}

// reached says whether a client that had err when it connected was accepted: it may be reset
// before it knows.
func reached(err error) bool { return err == nil || errors.Is(err, syscall.ECONNRESET) }

// hostile is one client of a listener.
func (s *storm) hostile(r *rand.Rand, name, addr string) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if reached(err) {
		s.opened[name].Add(1)
	}
	if err != nil {
		if !reached(err) {
			s.t.Errorf("%s: %v", name, err)
		}
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if (name == "terminated" || name == "plain") && r.IntN(3) == 0 {
		s.shakeHands(r, c)
		return
	}
	say := stormListeners[name](r, s)
	step := len(say)
	switch r.IntN(4) {
	case 0:
		step = 1 + len(say)/(1+r.IntN(20))
	case 1:
		step = max(1, len(say)/40) // byte by byte, of what is short
	}
	for len(say) > 0 {
		n := min(step, len(say))
		if _, err := c.Write(say[:n]); err != nil {
			break // it was sent away
		}
		if say = say[n:]; step < 1<<10 && r.IntN(20) == 0 {
			time.Sleep(upTo(r, 20*time.Millisecond))
		}
	}
	s.depart(r, c)
}

// depart leaves, in some way, at some time.
func (s *storm) depart(r *rand.Rand, c net.Conn) {
	tcp, plain := c.(*net.TCPConn)
	switch r.IntN(6) {
	case 0: // at once, with a FIN or, if something is there to be read, a RST
	case 1:
		if plain {
			_ = tcp.SetLinger(0)
		}
	case 2: // waits for the end
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	case 3: // is silent, and leaves with a RST
		_ = c.SetReadDeadline(time.Now().Add(upTo(r, 600*time.Millisecond)))
		_, _ = io.Copy(io.Discard, c)
		if plain {
			_ = tcp.SetLinger(0)
		}
	case 4: // never reads
		_, _ = c.Write(garbage(r, 128<<10))
		time.Sleep(upTo(r, 200*time.Millisecond))
	default: // reads a little
		_ = c.SetReadDeadline(time.Now().Add(upTo(r, 200*time.Millisecond)))
		_, _ = c.Read(make([]byte, 100))
	}
}

// shakeHands begins a TLS session, and leaves in the middle or later.
func (s *storm) shakeHands(r *rand.Rand, c net.Conn) {
	config := &tls.Config{ServerName: "a.test", InsecureSkipVerify: true}
	if r.IntN(2) == 0 {
		pair, err := tls.LoadX509KeyPair(filepath.Join(s.dir, "www.pem"), filepath.Join(s.dir, "www.key"))
		if err != nil {
			s.t.Error(err)
			return
		}
		config.Certificates = []tls.Certificate{pair}
	}
	leave := r.IntN(4) == 0
	session := tls.Client(&leaver{Conn: c, reads: leave}, config)
	if session.Handshake() != nil {
		return
	}
	_, _ = session.Write(garbage(r, 1000))
	s.depart(r, session)
}

// A leaver is a connection that is reset when something is to be read from it.
type leaver struct {
	net.Conn
	reads bool
}

func (l *leaver) Read(b []byte) (int, error) {
	if l.reads {
		_ = l.Conn.(*net.TCPConn).SetLinger(0)
		_ = l.Conn.Close()
	}
	return l.Conn.Read(b)
}

// honest is a client that wants all back that it sends.
func (s *storm) honest(r *rand.Rand, addr string) {
	k, err := startTalk(addr)
	if err != nil {
		s.t.Errorf("an honest client: %v", err)
		return
	}
	s.opened["exact"].Add(1)
	for range 1 + r.IntN(4) {
		b := garbage(r, 60<<10)
		if err = k.say(b); err != nil {
			break
		}
		s.exact.sent.Add(int64(len(b)))
		time.Sleep(upTo(r, 10*time.Millisecond))
	}
	if err = errors.Join(err, k.end()); err != nil {
		s.t.Errorf("an honest client: %v", err)
	}
}

// operate changes what can be changed, until the end.
func (s *storm) operate(r *rand.Rand, over <-chan struct{}) {
	client := &adminapi.Client{Address: "unix:" + s.socket}
	refused := func(err error) bool {
		var e *adminapi.Error
		return errors.As(err, &e)
	}
	for i := 1; ; i++ {
		select {
		case <-over:
			return
		case <-time.After(upTo(r, 60*time.Millisecond)):
		}
		var err error
		server := adminapi.Path("upstreams", "echo", "servers", []string{s.echo.addr, s.other.addr}[r.IntN(2)])
		kinds := 7
		if s.upgrade != nil {
			kinds++
		}
		switch r.IntN(kinds) {
		case 7:
			s.upgrade()
		case 0, 1:
			s.d.write(s.t, s.config(r.IntN(60)))
			if err = askReload(s.t.Context(), client); err != nil {
				s.t.Errorf("a reload: %v", err)
			}
			continue
		case 2:
			s.d.write(s.t, s.config(0)+"  wrong: {servers: nonsense}\n")
			if err = askReload(s.t.Context(), client); !refused(err) {
				s.t.Errorf("a wrong file: %v", err)
			}
			continue
		case 3:
			err = client.Do(s.t.Context(), http.MethodPost, server+"/drain", nil, nil)
		case 4:
			err = client.Do(s.t.Context(), http.MethodPost, server+"/undrain", nil, nil)
		case 5:
			weight := r.IntN(20)
			err = client.Do(s.t.Context(), http.MethodPost, server+"/weight", adminapi.Weight{Weight: &weight}, nil)
		default: // ends a session, but no honest one
			var all adminapi.Sessions
			err = client.Do(s.t.Context(), http.MethodGet, "/v1/sessions?listener=plain", nil, &all)
			if err == nil && len(all.Sessions) > 0 {
				id := all.Sessions[r.IntN(len(all.Sessions))].ID
				if err = client.Do(s.t.Context(), http.MethodDelete, adminapi.Path("sessions", fmt.Sprint(id)), nil, nil); refused(err) {
					err = nil // it has just ended
				}
			}
		}
		if err != nil {
			s.t.Errorf("the operator: %v", err)
		}
	}
}

// blow lets it blow for some time, and returns when everybody has left, and the daemon has
// nobody any more.
func (s *storm) blow(seed uint64, during time.Duration) {
	s.t.Helper()
	addrs := make(map[string]string)
	for name := range s.opened {
		addrs[name] = s.addr(name)
	}
	over := make(chan struct{})
	timer := time.AfterFunc(during, func() { close(over) })
	defer timer.Stop()
	var all sync.WaitGroup
	stream := uint64(0)
	each := func(n int, f func(*rand.Rand)) {
		for range n {
			stream++
			r := rand.New(rand.NewPCG(seed, stream))
			all.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
						f(r)
					}
				}
			})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(stormListeners)) {
		n := 2
		if name == "queue" || name == "behind" || name == "look" {
			n = 6
		}
		each(n, func(r *rand.Rand) {
			s.hostile(r, name, addrs[name])
			time.Sleep(upTo(r, 10*time.Millisecond))
		})
	}
	each(3, func(r *rand.Rand) { s.honest(r, addrs["exact"]) })
	all.Go(func() { s.operate(rand.New(rand.NewPCG(seed, 0)), over) })
	all.Wait()
	client := &adminapi.Client{Address: "unix:" + s.socket}
	s.d.write(s.t, s.config(0))
	if err := askReload(s.t.Context(), client); err != nil {
		s.t.Fatalf("a reload: %v", err)
	}
	for _, server := range []*stormServer{s.echo, s.other} {
		if err := client.Do(s.t.Context(), http.MethodPost, adminapi.Path("upstreams", "echo", "servers", server.addr)+"/undrain", nil, nil); err != nil {
			s.t.Fatal(err)
		}
	}
	eventually(s.t, func() error {
		time.Sleep(10 * time.Millisecond)
		var st adminapi.Status
		if err := client.Get(s.t.Context(), "/v1/status", nil, &st); err != nil {
			return err
		}
		for _, server := range []*stormServer{s.echo, s.other, s.rude, s.inside} {
			if n := server.open.Load(); n > 0 {
				return fmt.Errorf("%d connections of %s are open", n, server.addr)
			}
		}
		if st.Open != 0 {
			return fmt.Errorf("%d connections are open", st.Open)
		}
		return nil
	})
}

// addr is where a listener listens: the daemon says so with each reload, for all.
func (s *storm) addr(name string) string {
	prefix := name + ": listening on "
	return strings.TrimPrefix(s.d.stdout.await(s.t, prefix), prefix)
}

// stormTime is how long a storm lasts: SPLICED_STORM says so.
func stormTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SPLICED_STORM")
	if text == "" {
		return 3 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// stormSeed is that of a storm: SPLICED_STORM_SEED names it.
func stormSeed(t *testing.T) (seed uint64) {
	t.Helper()
	seed = rand.Uint64()
	if text := os.Getenv("SPLICED_STORM_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SPLICED_STORM_SEED=%d", seed)
	return seed
}

// After a storm nothing of anybody is left, and all who have counted it have counted the
// same: the log, the metrics, the admin API, clients and servers.
//
// SPLICED_STORM is how long it blows, 3s by default; SPLICED_STORM_SEED begins another one.
func TestStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Run("auto", func(t *testing.T) { runStorm(t, "auto") })
	t.Run("sockmap", func(t *testing.T) {
		testnet.Need(t, "root", "bpf")
		runStorm(t, "sockmap")
	})
	t.Run("wire", func(t *testing.T) {
		testnet.Need(t, "root", "bpf", "netns")
		runStorm(t, "wire")
	})
}

func runStorm(t *testing.T, engine string) {
	testnet.Leaks(t)
	seed := stormSeed(t)
	s := newStorm(t, engine, "")
	s.blow(seed, 500*time.Millisecond) // what is made once is there now
	before, had := s.d.usage(t, s.page), s.held()
	s.blow(seed+1, stormTime(t))
	// A few pipes are kept for who comes next, and programs are unloaded later.
	const pipes = 2 * 12
	var after usage
	var has map[string]int
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		after, has = s.d.usage(t, s.page), s.held()
		if has["socket"] <= had["socket"]+2 && has["pipe"] <= pipes && after.goroutines <= before.goroutines+6 {
			break
		}
		if time.Now().After(end) {
			t.Errorf("the daemon holds %v and %v after the storm, %v and %v before", has, after, had, before)
			break
		}
	}
	s.expectClientsForgotten()
	s.expectEqualSums(before, after)
}

// held says which descriptors the daemon has, by kind.
func (s *storm) held() map[string]int {
	held := make(map[string]int)
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.d.cmd.Process.Pid))
	for _, link := range links {
		to, _ := os.Readlink(link)
		kind, _, _ := strings.Cut(to, ":[")
		held[kind]++
	}
	return held
}

// expectClientsForgotten wants a client to have as many connections as it may have, and no
// more.
func (s *storm) expectClientsForgotten() {
	s.t.Helper()
	addr := s.addr("few")
	open := make([]net.Conn, 6)
	for i := range open {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			s.t.Fatal(err)
		}
		defer c.Close()
		s.opened["few"].Add(1)
		_ = c.SetDeadline(time.Now().Add(patience))
		echo1(s.t, c, "once more")
		open[i] = c
	}
	for _, c := range open {
		_ = c.Close()
	}
}

// drainLast opens connections that are in all phases, and has the daemon drain: end tells it to.
func (s *storm) drainLast(end func(*testing.T)) {
	s.t.Helper()
	addr := s.addr("last")
	var open []net.Conn
	for i, say := range [][]byte{nil, s.hello[:50], s.hello, s.hello, s.hello, s.hello, []byte("anything"), []byte("SSH-")} {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			s.t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(say); err != nil {
			s.t.Fatalf("connection %d: %v", i, err)
		}
		open = append(open, c)
	}
	client := &adminapi.Client{Address: "unix:" + s.socket}
	eventually(s.t, func() error {
		var st adminapi.Status
		if err := client.Get(s.t.Context(), "/v1/status", nil, &st); err != nil {
			return err
		}
		if st.Open != len(open) {
			return fmt.Errorf("%d connections are open, want %d", st.Open, len(open))
		}
		return nil
	})
	end(s.t)
}

// stormLog is what the log has said of connections.
type stormLog struct {
	accepted, joined, ended, failed map[float64]map[string]any // by id
	repeated                        []map[string]any
}

func (s *storm) readLog() *stormLog {
	s.t.Helper()
	l := &stormLog{map[float64]map[string]any{}, map[float64]map[string]any{}, map[float64]map[string]any{}, map[float64]map[string]any{}, nil}
	for text := range bytes.Lines([]byte(s.d.stderr.all())) {
		var line map[string]any
		if err := json.Unmarshal(text, &line); err != nil {
			s.t.Errorf("a line that is no JSON: %s", text)
			continue
		}
		into := map[any]map[float64]map[string]any{
			"connection accepted": l.accepted, "connection joined": l.joined, "connection ended": l.ended, "connection left to the next of its instance": l.ended, "no target reached": l.failed,
		}[line["msg"]]
		switch {
		case line["msg"] == "no target reached, again":
			l.repeated = append(l.repeated, line)
		case line["msg"] == "connection failed":
			s.t.Errorf("%s", text)
		case into != nil:
			id := line["id"].(float64)
			if into[id] != nil {
				s.t.Errorf("told twice: %s", text)
			}
			into[id] = line
		}
	}
	return l
}

// again is how many failures have no line of their own.
func (l *stormLog) again() (n int) {
	for _, line := range l.repeated {
		n += int(line["repeated"].(float64))
	}
	return n
}

// expectPairs wants each that has come to have gone, once.
func (l *stormLog) expectPairs(t *testing.T) {
	t.Helper()
	for id, line := range l.ended {
		if l.joined[id] == nil || l.accepted[id] == nil {
			t.Errorf("it has ended and never begun: %v", line)
		}
		if l.failed[id] != nil {
			t.Errorf("it has ended twice: %v", line)
		}
	}
	for id, line := range l.joined {
		if l.ended[id] == nil {
			t.Errorf("it has not ended: %v", line)
		}
	}
	if len(l.accepted) != len(l.ended)+len(l.failed)+l.again() {
		t.Errorf("%d accepted, %d ended, %d and %d more failed", len(l.accepted), len(l.ended), len(l.failed), l.again())
	}
}

// expectServed compares the log with servers and honest clients.
func (s *storm) expectServed(l *stormLog) {
	t := s.t
	t.Helper()
	// A dial that was given up when its client left may have reached its server.
	failed := float64(len(l.failed) + l.again())
	for name, server := range map[string]*stormServer{"echo": s.echo, "other": s.other, "rude": s.rude, "inside": s.inside} {
		joined, delivered := 0.0, 0.0
		for _, line := range l.ended {
			if line["server"] == server.addr {
				joined++
				delivered += line["bytes_to_target"].(float64)
			}
		}
		if have := float64(server.accepted.Load()); have < joined || have > joined+failed {
			t.Errorf("server %s has had %v connections, %v of the log", name, have, joined)
		}
		// The rude one is sent PROXY headers, too; and what wire has carried counts when it is
		// acknowledged, which a reset may come before.
		if have := float64(server.read.Load()); have > delivered && name != "rude" && s.engine == "sockmap" {
			t.Errorf("server %s has had %v bytes, %v of the log", name, have, delivered)
		}
	}
	bytesOf := func(direction string) (n float64) {
		for _, line := range l.ended {
			if line["listener"] == "exact" {
				n += line["bytes_"+direction].(float64)
			}
		}
		return n
	}
	if sent := float64(s.exact.sent.Load()); bytesOf("to_target") != sent || bytesOf("to_client") != sent {
		t.Errorf("honest clients have sent %v bytes and got them back; the log has %v and %v", sent, bytesOf("to_target"), bytesOf("to_client"))
	}
}

// expectEqualSums reads all sums, ends the daemon, and compares them.
func (s *storm) expectEqualSums(before, after usage) {
	t := s.t
	t.Helper()
	client := &adminapi.Client{Address: "unix:" + s.socket}
	var listeners adminapi.Listeners
	var upstreams adminapi.Upstreams
	var status adminapi.Status
	ask := func(path string, v any) {
		t.Helper()
		if err := client.Get(t.Context(), path, nil, v); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		if ask("/v1/status", &status); status.Open > 0 {
			return errors.New("connections are open")
		}
		return nil
	})
	ask("/v1/listeners", &listeners)
	ask("/v1/upstreams", &upstreams)
	metrics := counts(get(t, &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}, s.page))
	s.drainLast(s.d.stop)
	l := s.readLog()

	l.expectPairs(t)

	// By the names of the metrics.
	told := make(map[string]float64)
	passing := func(listener any) bool { return listener == "extra" || listener == "last" }
	add := func(n float64, format string, args ...any) { told[fmt.Sprintf(format, args...)] += n }
	var all struct{ accepted, failed float64 }
	for _, line := range l.accepted {
		if line["listener"] != "last" {
			all.accepted++
		}
		if !passing(line["listener"]) {
			add(1, "spliced_listener_accepted_total{listener=%q}", line["listener"])
		}
	}
	failed := func(line map[string]any, n float64) {
		if line["listener"] != "last" {
			all.failed += n
		}
		if !passing(line["listener"]) {
			add(n, "spliced_listener_failures_total{listener=%q,reason=%q}", line["listener"], line["reason"])
		}
	}
	for _, line := range l.failed {
		failed(line, 1)
	}
	for _, line := range l.repeated {
		failed(line, line["repeated"].(float64))
	}
	for id, line := range l.ended {
		if line["listener"] == "last" {
			continue
		}
		for _, direction := range []string{"to_target", "to_client"} {
			n := line["bytes_"+direction].(float64)
			add(n, "spliced_bytes_total{direction=%q}", direction)
			add(1, "spliced_directions_ended_total{direction=%q,reason=%q}", direction, line["end_"+direction])
			if line["server"] != s.refuses { // comes and goes
				add(n, "spliced_server_bytes_total{direction=%q,server=%q,upstream=%q}", direction, line["server"], line["upstream"])
			}
			if !passing(line["listener"]) {
				add(1, "spliced_listener_directions_ended_total{direction=%q,listener=%q,reason=%q}", direction, line["listener"], line["end_"+direction])
			}
		}
		add(1, "spliced_server_connections_total{server=%q,upstream=%q}", line["server"], line["upstream"])
		if !passing(line["listener"]) {
			add(1, "spliced_listener_engines_total{engine=%q,listener=%q,reason=%q}", line["engine"], line["listener"], line["engine_reason"])
			add(1, "spliced_listener_connect_seconds_count{listener=%q}", line["listener"])
			add(1, "spliced_listener_duration_seconds_count{listener=%q}", line["listener"])
		}
		if joined := l.joined[id]; joined != nil && (joined["server"] != line["server"] || joined["client"] != line["client"] || joined["listener"] != line["listener"]) {
			t.Errorf("joined as %v\nended as %v", joined, line)
		}
	}
	add(all.accepted, "spliced_connections_accepted_total")
	add(all.failed, "spliced_connections_failed_total")
	families := make(map[string]bool)
	for series := range told {
		family, _, _ := strings.Cut(series, "{")
		families[family] = true
	}
	compare := func(who string, have map[string]float64) {
		t.Helper()
		for series, want := range told {
			if have[series] != want {
				t.Errorf("%s: %s is %v, the log has %v", who, series, have[series], want)
			}
		}
		for series, n := range have {
			if family, _, _ := strings.Cut(series, "{"); families[family] && told[series] != n && told[series] == 0 && !strings.Contains(series, `"extra"`) {
				t.Errorf("%s: %s is %v, the log has none", who, series, n)
			}
		}
	}
	compare("metrics", metrics)
	compare("admin", adminSeries(&listeners, &upstreams, &status, told))
	for _, gauge := range []string{"spliced_connections_open", "spliced_connections_joined", "spliced_listener_open", "spliced_listener_joined", "spliced_upstream_queued", "spliced_server_active", "spliced_wire_flows"} {
		for series, n := range metrics {
			if strings.HasPrefix(series, gauge) && n != 0 {
				t.Errorf("%s is %v in the end", series, n)
			}
		}
	}

	// And by those who were there.
	clients := 0.0
	for name, opened := range s.opened {
		n := float64(opened.Load())
		clients += n
		if have := told[fmt.Sprintf("spliced_listener_accepted_total{listener=%q}", name)]; have != n {
			t.Errorf("%s: %v were accepted, %v have connected", name, have, n)
		}
	}
	s.expectServed(l)
	t.Logf("%v clients, %v of them joined; descriptors, goroutines and kilobytes %v before and %v after", clients, len(l.ended), before, after)
}

// adminSeries says what the admin API has counted by the names of the metrics; what it has
// not is taken from told.
func adminSeries(listeners *adminapi.Listeners, upstreams *adminapi.Upstreams, status *adminapi.Status, told map[string]float64) map[string]float64 {
	m := make(map[string]float64)
	for series, n := range told {
		for _, family := range []string{"spliced_listener_engines_total", "spliced_listener_connect_seconds_count", "spliced_listener_duration_seconds_count", "spliced_directions_ended_total"} {
			if strings.HasPrefix(series, family+"{") {
				m[series] = n
			}
		}
	}
	m["spliced_connections_accepted_total"] = float64(status.Accepted)
	m["spliced_connections_failed_total"] = float64(status.Failed)
	m[`spliced_bytes_total{direction="to_target"}`] = float64(status.BytesToTarget)
	m[`spliced_bytes_total{direction="to_client"}`] = float64(status.BytesToClient)
	for _, l := range listeners.Listeners {
		m[fmt.Sprintf("spliced_listener_accepted_total{listener=%q}", l.Name)] = float64(l.Accepted)
		for reason, n := range l.Failures {
			m[fmt.Sprintf("spliced_listener_failures_total{listener=%q,reason=%q}", l.Name, reason)] = float64(n)
		}
		for _, e := range l.Ends {
			m[fmt.Sprintf("spliced_listener_directions_ended_total{direction=%q,listener=%q,reason=%q}", e.Direction, l.Name, e.Reason)] = float64(e.Count)
		}
	}
	for _, u := range upstreams.Upstreams {
		for _, s := range u.Servers {
			m[fmt.Sprintf("spliced_server_connections_total{server=%q,upstream=%q}", s.Name, u.Name)] = float64(s.Connected)
			m[fmt.Sprintf("spliced_server_bytes_total{direction=\"to_target\",server=%q,upstream=%q}", s.Name, u.Name)] = float64(s.BytesToTarget)
			m[fmt.Sprintf("spliced_server_bytes_total{direction=\"to_client\",server=%q,upstream=%q}", s.Name, u.Name)] = float64(s.BytesToClient)
		}
	}
	return m
}
