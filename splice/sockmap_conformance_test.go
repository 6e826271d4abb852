//go:build linux

package splice_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
	"github.com/spliced-io/spliced/splice/conformance"
)

func TestSockmapConformance(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	conformance.Run(t, conformance.Sockmap())
}

// Bytes from before the session, a stream, a FIN each way, and nothing left.
func TestSockmapCarries(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	data := randomBytes(8 << 20)
	a, client := copyTCP(t)
	b, server := copyTCP(t)
	for _, c := range []interface{ SetDeadline(time.Time) error }{client, server} {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(client, "early"); err != nil {
		t.Fatal(err)
	}
	s, err := splice.Start(a, b, splice.Use(splice.EngineSockmap), splice.Own())
	if err != nil {
		t.Fatal(err)
	}
	early := make([]byte, 5)
	if _, err := io.ReadFull(server, early); err != nil || string(early) != "early" {
		t.Fatalf("%q, %v", early, err)
	}
	go func() {
		_, _ = client.Write(data)
		_ = client.CloseWrite()
	}()
	if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
	}
	if _, err := server.Write(data[:1000]); err != nil {
		t.Fatal(err)
	}
	if err := server.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, data[:1000]) {
		t.Fatalf("%d of 1000 bytes, %v", len(got), err)
	}
	res, err := s.Wait()
	if err != nil || res.AToB.Bytes != int64(len(data))+5 || res.BToA.Bytes != 1000 {
		t.Fatalf("%v, %v", res, err)
	}
	if d := res.Stats.BToA; d.Engine != splice.EngineSockmap || d.Redirected != 1000 {
		t.Errorf("%+v: want all redirected", d)
	}
}

// A pair that can't be in a sockmap is carried all the same, and says why.
func TestSockmapRefusesUnix(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	a, client := copyUnix(t, "unix")
	b, server := copyTCP(t)
	s, err := splice.Start(a, b, splice.Use(splice.EngineSockmap), splice.Own())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if d := s.Stats().AToB; d.Why.String() != "sockmap-not-tcp" || d.Engine != splice.EngineCopy || d.Redirected != 0 {
		t.Errorf("%+v", d)
	}
	client.Close()
	server.Close()
	_, _ = s.Wait()
}
