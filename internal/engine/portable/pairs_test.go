package portable

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// A kind makes connected pairs of one type.
type kind struct {
	name      string
	pair      func(testing.TB) (near, far io.ReadWriteCloser)
	halfClose bool // CloseWrite is there
	resets    bool // SetLinger(0) reaches the peer as an error, not as EOF
	deadlines bool
}

var kinds = []kind{
	{"tcp", tcpPair, true, true, true},
	{"tls", tlsPair, true, true, true},
	{"net.Pipe", netPipe, false, false, true},
	{"os.Pipe", osPipes, true, false, true},
	{"bare", barePair, false, false, false},
}

func eachKind(t *testing.T, f func(*testing.T, kind)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { f(t, k) })
	}
}

func tcpPair(t testing.TB) (near, far io.ReadWriteCloser) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func tlsPair(t testing.TB) (near, far io.ReadWriteCloser) {
	t.Helper()
	n, f := tcpPair(t)
	server, client := tlsConfig(t)
	s, c := tls.Server(n.(net.Conn), server), tls.Client(f.(net.Conn), client)
	done := make(chan error, 1)
	go func() { done <- c.Handshake() }()
	if err := errors.Join(s.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.NetConn().Close(); c.NetConn().Close() })
	return s, c
}

func tlsConfig(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"test"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: roots, ServerName: "test"}
}

func netPipe(t testing.TB) (near, far io.ReadWriteCloser) {
	n, f := net.Pipe()
	t.Cleanup(func() { n.Close(); f.Close() })
	return n, f
}

// filePair is a duplex stream of two pipes, with deadlines.
type filePair struct{ r, w *os.File }

func (p *filePair) Read(b []byte) (int, error)  { return p.r.Read(b) }
func (p *filePair) Write(b []byte) (int, error) { return p.w.Write(b) }
func (p *filePair) Close() error                { return errors.Join(p.r.Close(), p.w.Close()) }
func (p *filePair) CloseWrite() error           { return p.w.Close() }

func (p *filePair) SetReadDeadline(t time.Time) error  { return p.r.SetReadDeadline(t) }
func (p *filePair) SetWriteDeadline(t time.Time) error { return p.w.SetWriteDeadline(t) }
func (p *filePair) SetDeadline(t time.Time) error {
	_ = p.w.SetWriteDeadline(t) // closed after CloseWrite
	return p.r.SetReadDeadline(t)
}

func osPipes(t testing.TB) (near, far io.ReadWriteCloser) {
	t.Helper()
	r1, w1, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r2, w2, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	near, far = &filePair{r1, w2}, &filePair{r2, w1}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// barePair has Read, Write and Close, and nothing else.
func barePair(t testing.TB) (near, far io.ReadWriteCloser) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	n, f := &bare{r1, w2}, &bare{r2, w1}
	t.Cleanup(func() { n.Close(); f.Close() })
	return n, f
}

type bare struct {
	r *io.PipeReader
	w *io.PipeWriter
}

func (b *bare) Read(p []byte) (int, error)  { return b.r.Read(p) }
func (b *bare) Write(p []byte) (int, error) { return b.w.Write(p) }
func (b *bare) Close() error                { return errors.Join(b.r.Close(), b.w.Close()) }

func tlsServer(c io.ReadWriteCloser, config *tls.Config) *tls.Conn {
	return tls.Server(c.(net.Conn), config)
}

func tlsClient(c io.ReadWriteCloser, config *tls.Config) *tls.Conn {
	return tls.Client(c.(net.Conn), config)
}
