package splice

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// uncomparable panics when it is compared.
type uncomparable struct {
	io.ReadWriteCloser
	_ []byte
}

func TestPortableSameTwice(t *testing.T) {
	p, q := net.Pipe()
	defer p.Close()
	defer q.Close()
	type wrapper struct{ net.Conn }
	for name, pair := range map[string][2]io.ReadWriteCloser{
		"value":   {p, p},
		"wrapper": {wrapper{p}, wrapper{p}},
	} {
		s, err := Start(pair[0], pair[1])
		if !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v; want %v", name, err, syscall.EINVAL)
		}
		if s != nil {
			s.Abort()
		}
	}
}

func TestPortableUncomparable(t *testing.T) {
	p, farP := net.Pipe()
	q, farQ := net.Pipe()
	defer farQ.Close()
	type nested struct{ io.ReadWriteCloser }
	s, err := Start(nested{uncomparable{ReadWriteCloser: p}}, nested{uncomparable{ReadWriteCloser: q}}, Own())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Abort()
	defer farP.Close()
	if _, err := farP.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := farQ.Read(b); err != nil || b[0] != 'x' {
		t.Errorf("%q, %v", b, err)
	}
}
