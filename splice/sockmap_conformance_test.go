//go:build linux

package splice_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
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

// 64 MiB and a FIN behind them, to a receiver that has yet to read megabytes of
// them when the FIN is sent: sockmaps as they are lose what is queued then.
func TestSockmapSlowReceiverBeforeFIN(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	const total = 64 << 20
	data := randomBytes(total)
	for name, backward := range map[string]bool{"a-to-b": false, "b-to-a": true} {
		t.Run(name, func(t *testing.T) {
			testnet.Leaks(t)
			a, sender := copyTCP(t)
			b, receiver := copyTCP(t)
			if backward {
				sender, receiver = receiver, sender
			}
			for _, c := range []*net.TCPConn{sender, receiver} {
				if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
			s, err := splice.Start(a, b, splice.Use(splice.EngineSockmap), splice.Own())
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			go func() {
				_, err := sender.Write(data)
				sent <- errors.Join(err, sender.CloseWrite())
			}()
			// A step at a time, until the FIN is sent: all that is left is in the
			// kernel then, and nowhere but there.
			got := make([]byte, total)
			n := 0
			for finished := false; !finished; {
				select {
				case err := <-sent:
					if err != nil {
						t.Fatal(err)
					}
					finished = true
				case <-time.After(time.Millisecond): // slow, not a synchronisation
					m, err := io.ReadFull(receiver, got[n:min(n+512<<10, total)])
					if n += m; err != nil {
						t.Fatalf("after %d bytes: %v", n, err)
					}
				}
			}
			left := total - n
			rest, err := io.ReadAll(receiver)
			if err != nil || len(rest) != left || !bytes.Equal(append(got[:n], rest...), data) {
				t.Fatalf("%d bytes and %d of the %d that were left when the FIN was sent, %v", n, len(rest), left, err)
			}
			if err := receiver.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			res, err := s.Wait()
			way, stats := res.AToB, res.Stats.AToB
			if backward {
				way, stats = res.BToA, res.Stats.BToA
			}
			t.Logf("%d bytes were left when the FIN was sent; %+v", left, stats)
			if err != nil || way.Bytes != total || way.Reason.String() != "eof" {
				t.Errorf("%v, %v", res, err)
			}
			if stats.Engine != splice.EngineSockmap || stats.Redirected == 0 || left == 0 {
				t.Errorf("%+v, %d left: want some redirected, and some left", stats, left)
			}
		})
	}
}

// A limit that leaves room for segments is redirected towards, and kept to the
// byte: the rest of the way is another engine's.
func TestSockmapMaxBytes(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	const limit, total = 40<<20 + 123, 48 << 20
	data := randomBytes(total)
	a, client := copyTCP(t)
	b, server := copyTCP(t)
	for _, c := range []*net.TCPConn{a, b, client, server} {
		if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := splice.Start(a, b, splice.Use(splice.EngineSockmap), splice.MaxBytes(limit, 0))
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, total)
	// Small messages to begin with: all of them can be redirected.
	const small = 1000
	for i := range 10 {
		at := i * small
		if _, err := client.Write(data[at : at+small]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, got[at:at+small]); err != nil {
			t.Fatal(err)
		}
	}
	if d := s.Stats().AToB; d.Engine != splice.EngineSockmap || d.Redirected == 0 {
		t.Errorf("before the limit is near: %+v", d)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := client.Write(data[10*small:])
		sent <- err
	}()
	if _, err := io.ReadFull(server, got[10*small:limit]); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); s.Stats().AToB.Reason.String() == "running"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the direction does not end: %+v", s.Stats().AToB)
		}
	}
	d := s.Stats().AToB
	if d.Reason.String() != "max" || d.Bytes != limit || d.Engine == splice.EngineSockmap || d.Why.String() != "sockmap-max-bytes" {
		t.Errorf("%+v, want %d bytes, the last of them by another engine because of the limit", d, limit)
	}
	// The other direction goes on.
	if _, err := server.Write(data[:small]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, small)); err != nil {
		t.Fatal(err)
	}
	res, err := s.Stop(t.Context())
	if err != nil || len(res.AToB.Undelivered) != 0 || res.BToA.Bytes != small {
		t.Errorf("%v, %v", res, err)
	}
	// The byte after the last is the source's, and so are all behind it.
	if _, err := io.ReadFull(a, got[limit:]); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the stream is not whole: %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := server.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if n, err := server.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes beyond the limit, %v", n, err)
	}
}
