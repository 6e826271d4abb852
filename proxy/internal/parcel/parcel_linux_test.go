package parcel_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy/internal/parcel"
)

func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	a, b = testnet.UnixPair(t)
	for _, c := range []*net.UnixConn{a, b} {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return a, b
}

// Parcels arrive one by one, each with its own files, however large they are.
func TestSendReceive(t *testing.T) {
	testnet.Leaks(t)
	a, b := pair(t)
	raw := bytes.Repeat([]byte("raw"), 1<<20)
	var names []string
	go func() {
		for i := range 20 {
			var fds []int
			for range i * 13 {
				r, w, err := os.Pipe()
				if err != nil {
					t.Error(err)
					return
				}
				_ = w.Close()
				defer r.Close()
				fd, err := parcel.Descriptor(r)
				if err != nil {
					t.Error(err)
					return
				}
				fds = append(fds, fd)
			}
			if err := parcel.Send(a, []byte{byte(i)}, raw[:i*len(raw)/20], fds...); err != nil {
				t.Error(err)
			}
		}
		_ = a.Close()
	}()
	for i := range 20 {
		p, err := parcel.Receive(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Body) != 1 || p.Body[0] != byte(i) || !bytes.Equal(p.Raw, raw[:i*len(raw)/20]) || len(p.Files) != i*13 {
			t.Errorf("parcel %d: body %v, %d bytes, %d files", i, p.Body, len(p.Raw), len(p.Files))
		}
		if f := p.Take(1); f != nil {
			names = append(names, f.Name())
			_ = f.Close()
		}
		p.Close()
	}
	if _, err := parcel.Receive(b); err != io.EOF {
		t.Errorf("after the last: %v", err)
	}
	if len(names) != 19 {
		t.Errorf("took %d files", len(names))
	}
}

// FuzzReceive: whatever comes, nothing is left open, and memory is bounded.
func FuzzReceive(f *testing.F) {
	head := func(body, raw, files uint32) []byte {
		b := []byte("splP")
		for _, v := range []uint32{body, raw, files} {
			b = binary.BigEndian.AppendUint32(b, v)
		}
		return b
	}
	f.Add(append(head(2, 1, 0), "{}x"...))
	f.Add(head(0, 0, 0))
	f.Add(head(1<<31, 0, 0))
	f.Add(head(0, 0, 3))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("spl"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := pair(t)
		go func() {
			_, _ = x.Write(b)
			_ = x.Close()
		}()
		for {
			p, err := parcel.Receive(y)
			if err != nil {
				if p != nil {
					t.Error("a parcel and an error")
				}
				return
			}
			if len(p.Body)+len(p.Raw) > len(b) {
				t.Errorf("%d bytes of %d", len(p.Body)+len(p.Raw), len(b))
			}
			p.Close()
		}
	})
}
