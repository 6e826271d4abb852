package splice

import (
	"net"
	"testing"
)

// shaking looks like a TLS session.
type shaking struct{ hidden }

func (shaking) Handshake() error { return nil }

// A pair with a TLS session in it says so.
func TestWhyTLS(t *testing.T) {
	t.Parallel()
	client, a, b, server := joined(t)
	s, err := Start(shaking{hidden{a.(*net.TCPConn)}}, b)
	if err != nil {
		t.Fatal(err)
	}
	if why := s.Stats().AToB.Why.String(); why != "tls" {
		t.Errorf("it is copied for %q, want tls", why)
	}
	client.Close()
	server.Close()
	if _, err := s.Wait(); err != nil {
		t.Error(err)
	}
}
