package tlsfiles

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/testcert"
)

// An issuer signs certificates of a test.
type issuer struct {
	t   *testing.T
	dir string
	*testcert.Issuer
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	dir := t.TempDir()
	ca, err := testcert.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{t, dir, ca}
}

func (i *issuer) path(name string) string { return filepath.Join(i.dir, name) }

func (i *issuer) issue(name string, serial int64, ofRSA bool, names ...string) Pair {
	i.t.Helper()
	certificate, key, err := i.Issue(name, serial, ofRSA, names...)
	if err != nil {
		i.t.Fatal(err)
	}
	return Pair{certificate, key}
}

// shake connects a client to a server, sends a byte each way, and returns what
// both know of the session.
func shake(t *testing.T, server, client *tls.Config) (s, c tls.ConnectionState, err error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	deadline, _ := ctx.Deadline()
	served := make(chan error, 1)
	go func() {
		near, err := ln.Accept()
		if err != nil {
			served <- err
			return
		}
		defer near.Close()
		_ = near.SetDeadline(deadline)
		conn := tls.Server(near, server)
		if err = conn.HandshakeContext(ctx); err == nil {
			s = conn.ConnectionState()
			_, err = conn.Write([]byte{1}) // and, before it, the session ticket
			if err == nil {
				_, err = io.Copy(io.Discard, conn)
			}
		}
		served <- err
	}()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	_ = far.SetDeadline(deadline)
	conn := tls.Client(far, client)
	_, err = conn.Read(make([]byte, 1))
	c = conn.ConnectionState()
	conn.Close()
	if served := <-served; err == nil || served != nil {
		err = errors.Join(err, served)
	}
	return s, c, err
}

func server(t *testing.T, f ServerFiles) *Server {
	t.Helper()
	s, err := NewServer(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func client(t *testing.T, f ClientFiles, host string) *tls.Config {
	t.Helper()
	c, err := NewClient(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.Config(host)
}

func TestCertificateByName(t *testing.T) {
	t.Parallel()
	ca := newIssuer(t)
	s := server(t, ServerFiles{Pairs: []Pair{
		ca.issue("first", 10, false, "first.example"),
		ca.issue("exact", 11, false, "www.Other.example"),
		ca.issue("wildcard", 12, false, "*.other.example"),
		ca.issue("rsa", 13, true, "both.example"),
		ca.issue("ecdsa", 14, false, "both.example"),
	}})
	for name, want := range map[string]int64{
		"first.example": 10, "www.other.example": 11, "WWW.other.example": 11, "a.other.example": 12, "a.b.other.example": 10,
		"other.example": 10, "": 10, "elsewhere.example": 10, "both.example": 13,
	} {
		_, c, err := shake(t, s.Config(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if got := c.PeerCertificates[0].SerialNumber.Int64(); got != want {
			t.Errorf("%q: certificate %d, want %d", name, got, want)
		}
	}
	// A client that knows no RSA gets the other.
	_, c, err := shake(t, s.Config(), &tls.Config{
		ServerName: "both.example", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	})
	if err != nil || c.PeerCertificates[0].SerialNumber.Int64() != 14 {
		t.Errorf("without RSA: %v", err)
	}
}

func TestReadAgain(t *testing.T) {
	t.Parallel()
	ca := newIssuer(t)
	s := server(t, ServerFiles{Pairs: []Pair{ca.issue("a", 1, false, "a.example")}})
	serial := func() int64 {
		t.Helper()
		_, c, err := shake(t, s.Config(), &tls.Config{ServerName: "a.example", InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		return c.PeerCertificates[0].SerialNumber.Int64()
	}
	if changed, err := s.Refresh(); changed || err != nil {
		t.Errorf("untouched files: %t, %v", changed, err)
	}
	ca.issue("a", 2, false, "a.example")
	if changed, err := s.Refresh(); !changed || err != nil || serial() != 2 {
		t.Errorf("new files: %t, %v, certificate %d", changed, err, serial())
	}
	// Half of a renewal: the key is not the certificate's.
	ca.issue("b", 3, false, "a.example")
	if err := os.Rename(ca.path("b.key"), ca.path("a.key")); err != nil {
		t.Fatal(err)
	}
	changed, err := s.Refresh()
	if !changed || err == nil || !strings.Contains(err.Error(), ca.path("a.key")) || serial() != 2 {
		t.Errorf("half of them: %t, %v, certificate %d", changed, err, serial())
	}
	if changed, err := s.Refresh(); changed || err != nil {
		t.Errorf("told twice: %t, %v", changed, err)
	}
	if err := os.Rename(ca.path("b.pem"), ca.path("a.pem")); err != nil {
		t.Fatal(err)
	}
	if changed, err := s.Refresh(); !changed || err != nil || serial() != 3 {
		t.Errorf("the other half: %t, %v, certificate %d", changed, err, serial())
	}
	os.Remove(ca.path("a.pem"))
	if changed, err := s.Refresh(); !changed || !errors.Is(err, os.ErrNotExist) || serial() != 3 {
		t.Errorf("removed: %t, %v, certificate %d", changed, err, serial())
	}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ca, stranger := newIssuer(t), newIssuer(t)
	own := ca.issue("client", 7, false)
	foreign := stranger.issue("client", 8, false)
	pairs := []Pair{ca.issue("server", 1, false, "s.example")}
	for name, tt := range map[string]struct {
		ask  ClientCertificate
		show Pair
		want int64 // what the server saw; -1 is a refusal
	}{
		"not asked":         {NoCertificate, own, 0},
		"optional, none":    {OptionalCertificate, Pair{}, 0},
		"optional, good":    {OptionalCertificate, own, 7},
		"optional, foreign": {OptionalCertificate, foreign, -1},
		"required, none":    {RequiredCertificate, Pair{}, -1},
		"required, good":    {RequiredCertificate, own, 7},
		"required, foreign": {RequiredCertificate, foreign, -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := ServerFiles{Pairs: pairs, ClientCertificate: tt.ask, ClientAuthorities: ca.path("ca.pem")}
			s, _, err := shake(t, server(t, f).Config(), client(t, ClientFiles{Authorities: ca.path("ca.pem"), Pair: tt.show}, "s.example"))
			if (err != nil) != (tt.want < 0) {
				t.Fatal(err)
			}
			seen := int64(0)
			if len(s.PeerCertificates) > 0 {
				seen = s.PeerCertificates[0].SerialNumber.Int64()
			}
			if seen != max(0, tt.want) {
				t.Errorf("the server saw certificate %d, want %d", seen, tt.want)
			}
		})
	}
}

func TestVerifyServer(t *testing.T) {
	t.Parallel()
	ca, stranger := newIssuer(t), newIssuer(t)
	s := server(t, ServerFiles{Pairs: []Pair{ca.issue("server", 1, false, "s.example")}})
	for name, tt := range map[string]struct {
		files ClientFiles
		host  string
		wrong string
	}{
		"good":             {ClientFiles{Authorities: ca.path("ca.pem")}, "s.example", ""},
		"name configured":  {ClientFiles{Authorities: ca.path("ca.pem"), ServerName: "s.example"}, "10.0.0.1", ""},
		"another name":     {ClientFiles{Authorities: ca.path("ca.pem")}, "t.example", "t.example"},
		"another issuer":   {ClientFiles{Authorities: stranger.path("ca.pem")}, "s.example", "unknown authority"},
		"the system's":     {ClientFiles{}, "s.example", "unknown authority"},
		"without a look":   {ClientFiles{NoVerify: true}, "t.example", ""},
		"an older version": {ClientFiles{Authorities: ca.path("ca.pem"), MinVersion: tls.VersionTLS13}, "s.example", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, c, err := shake(t, s.Config(), client(t, tt.files, tt.host))
			if tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
				t.Errorf("error %v, want %q", err, tt.wrong)
			}
			if err == nil && c.Version < tls.VersionTLS12 {
				t.Errorf("version %#x", c.Version)
			}
		})
	}
}

// When the files for servers change, sessions from before are not resumed: they would
// go on as who one was, with whom one trusted.
func TestClientReadsAgain(t *testing.T) {
	t.Parallel()
	ca, stranger := newIssuer(t), newIssuer(t)
	authorities := ca.path("trusted.pem")
	trust := func(i *issuer) {
		t.Helper()
		b, err := os.ReadFile(i.path("ca.pem"))
		if err == nil {
			err = os.WriteFile(authorities+".new", b, 0o600)
		}
		if err == nil {
			err = os.Rename(authorities+".new", authorities)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	trust(ca)
	s := server(t, ServerFiles{
		Pairs: []Pair{ca.issue("server", 1, false, "s.example")}, ClientCertificate: RequiredCertificate, ClientAuthorities: ca.path("ca.pem"),
	})
	c, err := NewClient(ClientFiles{Authorities: authorities, Pair: ca.issue("client", 7, false)})
	if err != nil {
		t.Fatal(err)
	}
	seen := func() (serial int64, resumed bool) {
		t.Helper()
		state, _, err := shake(t, s.Config(), c.Config("s.example"))
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.Int64(), state.DidResume
	}
	if serial, resumed := seen(); serial != 7 || resumed {
		t.Errorf("the server saw certificate %d, resumed: %v", serial, resumed)
	}
	if serial, resumed := seen(); serial != 7 || !resumed {
		t.Errorf("again: the server saw certificate %d, resumed: %v", serial, resumed)
	}
	ca.issue("client", 8, false)
	if changed, err := c.Refresh(); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if serial, resumed := seen(); serial != 8 || resumed {
		t.Errorf("after a change of the certificate the server saw %d, resumed: %v", serial, resumed)
	}
	trust(stranger)
	if changed, err := c.Refresh(); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if _, _, err := shake(t, s.Config(), c.Config("s.example")); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("after a change of authorities: %v", err)
	}
}

func TestMinVersion(t *testing.T) {
	t.Parallel()
	ca := newIssuer(t)
	pairs := []Pair{ca.issue("server", 1, false, "s.example")}
	for _, tt := range []struct{ least, most uint16 }{{0, tls.VersionTLS11}, {tls.VersionTLS13, tls.VersionTLS12}} {
		s := server(t, ServerFiles{Pairs: pairs, MinVersion: tt.least})
		_, _, err := shake(t, s.Config(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tt.most})
		if err == nil || !strings.Contains(err.Error(), "version") {
			t.Errorf("at least %#x, at most %#x: %v", tt.least, tt.most, err)
		}
	}
}

// A session is resumed within a day and after its key was succeeded by another,
// but not for ever, and not after the certificate has changed.
func TestTicketKeysRotate(t *testing.T) {
	t.Parallel()
	ca := newIssuer(t)
	s := server(t, ServerFiles{Pairs: []Pair{ca.issue("server", 1, false, "s.example")}})
	c := client(t, ClientFiles{Authorities: ca.path("ca.pem")}, "s.example")
	resumed := func() bool {
		t.Helper()
		state, _, err := shake(t, s.Config(), c)
		if err != nil {
			t.Fatal(err)
		}
		return state.DidResume
	}
	now := time.Now()
	clock := func() time.Time { return now }
	s.Config().Time, c.Time = clock, clock
	if resumed() || !resumed() {
		t.Fatal("no session was resumed")
	}
	now = now.Add(25 * time.Hour)
	if !resumed() {
		t.Error("a day later a session is not resumed")
	}
	before := c.ClientSessionCache
	c.ClientSessionCache = frozen{before}
	now = now.Add(8 * 24 * time.Hour)
	if resumed() {
		t.Error("a session is resumed after eight days")
	}
	c.ClientSessionCache = before
	if resumed(); !resumed() {
		t.Fatal("no session was resumed")
	}
	ca.issue("server", 2, false, "s.example")
	if changed, err := s.Refresh(); !changed || err != nil {
		t.Fatal(changed, err)
	}
	s.Config().Time = clock
	if resumed() {
		t.Error("a session is resumed after its server's certificate was replaced")
	}
}

// frozen keeps what is in it.
type frozen struct{ tls.ClientSessionCache }

func (frozen) Put(string, *tls.ClientSessionState) {}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	ca := newIssuer(t)
	good, other := ca.issue("good", 1, false, "s.example"), ca.issue("other", 2, false, "s.example")
	garbage := ca.path("garbage")
	if err := os.WriteFile(garbage, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca.path("locked.key"), []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := ca.path("missing")
	for want, f := range map[string]ServerFiles{
		"there is no certificate":                                      {},
		"certificate: open " + missing:                                 {Pairs: []Pair{{missing, good.Key}}},
		"key: open " + missing:                                         {Pairs: []Pair{{good.Certificate, missing}}},
		fmt.Sprintf("%s with key %s", good.Certificate, other.Key):     {Pairs: []Pair{{good.Certificate, other.Key}}},
		"certificate " + garbage:                                       {Pairs: []Pair{{garbage, ""}}},
		ca.path("locked.key") + " is encrypted":                        {Pairs: []Pair{{good.Certificate, ca.path("locked.key")}}},
		"there are no authorities for the certificates of clients":     {Pairs: []Pair{good}, ClientCertificate: RequiredCertificate},
		"authorities " + garbage + ": there is no certificate":         {Pairs: []Pair{good}, ClientAuthorities: garbage},
		"authorities: open " + missing + ": no such file or directory": {Pairs: []Pair{good}, ClientAuthorities: missing},
	} {
		if _, err := NewServer(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	for want, f := range map[string]ClientFiles{
		"authorities: open " + missing: {Authorities: missing},
		"certificate: open " + missing: {Pair: Pair{Certificate: missing}},
	} {
		if _, err := NewClient(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	// Both in one file.
	chain, _ := os.ReadFile(good.Certificate)
	key, _ := os.ReadFile(good.Key)
	if err := os.WriteFile(ca.path("both.pem"), append(chain, key...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewServer(ServerFiles{Pairs: []Pair{{Certificate: ca.path("both.pem")}}}); err != nil {
		t.Errorf("both in one file: %v", err)
	}
}
