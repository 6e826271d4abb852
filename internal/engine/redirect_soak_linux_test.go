package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// soak makes the two tests below as long as the promise asks for
// (SPLICED_SOCKMAP_SOAK=1): 1 GiB with 1,000 stalls; 200 connections for a
// minute. The figures are in docs/engines.md.
func soak() bool { return os.Getenv("SPLICED_SOCKMAP_SOAK") != "" }

// A sequence is a stream of bytes at random, which come again after a prime
// number of them: what is lost, repeated or out of order is seen.
type sequence int64

const (
	sequencePeriod = 1<<20 - 3
	sequencePart   = 256 << 10 // the most at once
)

var sequenceBytes = sync.OnceValue(func() []byte {
	b := make([]byte, sequencePeriod+sequencePart)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b[:sequencePeriod])
	copy(b[sequencePeriod:], b)
	return b
})

// part returns the n bytes from position at on, which are not to be changed.
func (q sequence) part(at int64, n int) []byte {
	begin := (int64(q)*7919 + at) % sequencePeriod
	return sequenceBytes()[begin:][:n]
}

// check says whether b is what comes at position at.
func (q sequence) check(b []byte, at int64) error {
	if want := q.part(at, len(b)); !bytes.Equal(b, want) {
		i := 0
		for b[i] == want[i] {
			i++
		}
		return fmt.Errorf("another byte at position %d", at+int64(i))
	}
	return nil
}

// beyond counts the bytes that are in none of the four sockets' buffers, of
// those that were sent and not read.
func beyond(sent, read int64, client, relayA, relayB, server int) (n int64, err error) {
	n = sent - read
	for _, fd := range []int{client, relayB} {
		q, err := sys.Unacked(fd)
		if err != nil {
			return 0, err
		}
		n -= int64(q)
	}
	for _, fd := range []int{relayA, server} {
		q, err := sys.Unread(fd)
		if err != nil {
			return 0, err
		}
		n -= int64(q)
	}
	return n, nil
}

// The receiver stalls again and again: the sender is blocked, what is held
// beyond the sockets' buffers is bounded, and all bytes come, in order.
func TestRedirectStalls(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	total, stalls := int64(96<<20), 12
	if soak() {
		total, stalls = 1<<30, 1000
	}
	var r Reactor
	empty := emptyMaps(t, &r)
	fds, peers := ends(t)
	for _, p := range peers {
		if err := p.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	var looks [2]int // at the relay's sockets, which the session closes
	for i, fd := range fds {
		var err error
		if looks[i], err = sys.Dup(fd); err != nil {
			t.Fatal(err)
		}
		defer sys.Close(looks[i])
	}
	client, server := descriptor(t, peers[0]), descriptor(t, peers[1])
	defer sys.Close(client)
	defer sys.Close(server)
	before := kernelMemory(t)
	s, err := r.Start(Spec{Kind: Sockmap, A: fds[0], B: fds[1], Own: true})
	if err != nil {
		t.Fatal(err)
	}
	const seed sequence = 1
	var sent atomic.Int64
	sender := make(chan error, 1)
	go func() {
		for at := int64(0); at < total; {
			n, err := peers[0].Write(seed.part(at, int(min(total-at, 1+rand.Int64N(sequencePart)))))
			at += int64(n)
			sent.Store(at)
			if err != nil {
				sender <- err
				return
			}
		}
		sender <- peers[0].CloseWrite()
	}()
	// rest waits until nothing is sent any more.
	rest := func(calm time.Duration) {
		last, since := sent.Load(), time.Now()
		for time.Since(since) < calm {
			time.Sleep(calm / 10)
			if now := sent.Load(); now != last {
				last, since = now, time.Now()
			}
		}
	}
	rest(300 * time.Millisecond) // at first nothing is read at all
	if n := sent.Load(); n == 0 || n == total {
		t.Fatalf("%d of %d bytes sent while the receiver read nothing", n, total)
	}
	var most, read int64
	var memory []int64 // of the machine's, beyond what is charged to the sockets
	b := make([]byte, sequencePart)
	for i := range stalls {
		held, err := beyond(sent.Load(), read, client, looks[0], looks[1], server)
		if err != nil {
			t.Fatal(err)
		}
		// Write counts when it returns: one call's bytes may be in the buffers.
		most = max(most, held)
		beyond := kernelMemory(t) - before
		for _, fd := range []int{client, looks[0], looks[1], server} {
			beyond -= charged(t, fd)
		}
		memory = append(memory, beyond)
		for until := min(total, read+1+rand.Int64N(2*(total-read)/int64(stalls-i))); read < until; {
			n, err := peers[1].Read(b[:min(int64(len(b)), until-read)])
			if err == nil {
				err = seed.check(b[:n], read)
			}
			read += int64(n)
			if err != nil {
				t.Fatal(err)
			}
		}
		rest(time.Duration(1+rand.IntN(20)) * time.Millisecond)
	}
	for {
		n, err := peers[1].Read(b)
		if n > 0 {
			if err := seed.check(b[:n], read); err != nil {
				t.Fatal(err)
			}
		}
		read += int64(n)
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-sender; err != nil || read != total {
		t.Fatalf("%d of %d bytes, %v", read, total, err)
	}
	if err := peers[1].CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	d := s.Result().Stats.AToB
	t.Logf("%d bytes, %d stalls, at most %d bytes beyond the sockets' buffers; %d redirected", total, stalls, most, d.Redirected)
	// One stream is little beside what else happens on the machine.
	slices.Sort(memory)
	t.Logf("of the machine's memory beyond the sockets' buffers: median %d, from %d to %d, 19 of 20 below %d",
		memory[stalls/2], memory[0], memory[stalls-1], memory[stalls*19/20])
	if soak() && memory[stalls/2] > beyondMost {
		t.Errorf("%d bytes of memory were held beyond the sockets' buffers", memory[stalls/2])
	}
	if most > beyondMost {
		t.Errorf("%d bytes were held beyond the sockets' buffers", most)
	}
	if d.Bytes != total || d.Redirected == 0 {
		t.Errorf("%+v, want %d bytes and some of them redirected", d, total)
	}
	empty()
}

// Many connections at once with chunks, pauses and ends at random: no byte is
// lost, repeated or out of order, and nothing is left in the maps.
func TestRedirectManyConnections(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	at, lasting := 16, 1500*time.Millisecond
	if soak() {
		at, lasting = 200, time.Minute
	}
	var r Reactor
	empty := emptyMaps(t, &r)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var c crowd
	var wg sync.WaitGroup
	var accepting sync.Mutex
	for end := time.Now().Add(lasting); at > 0; at-- {
		wg.Go(func() {
			for time.Now().Before(end) {
				if err := c.converse(&r, ln, &accepting); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d conversations, %d of them reset, %d bytes, %d of them redirected", c.count.Load(), c.resets.Load(), c.bytes.Load(), c.redirected.Load())
	if c.count.Load() == 0 || c.redirected.Load() == 0 {
		t.Error("nothing was redirected")
	}
	empty()
}

// A crowd counts what conversations have carried.
type crowd struct{ count, resets, bytes, redirected atomic.Int64 }

// converse has two peers talk through a session at once.
func (c *crowd) converse(r *Reactor, ln net.Listener, accepting *sync.Mutex) error {
	var fds [2]int
	var peers [2]*net.TCPConn
	for i := range fds {
		var err error
		if peers[i], fds[i], err = connect(ln, accepting); err != nil {
			return err
		}
		defer peers[i].Close()
		if err := peers[i].SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
	}
	s, err := r.Start(Spec{Kind: Sockmap, A: fds[0], B: fds[1], Own: true})
	if err != nil {
		return err
	}
	reset := rand.IntN(5) == 0
	lengths := [2]int64{rand.Int64N(1 << 20), rand.Int64N(1 << 20)}
	var wg sync.WaitGroup
	var saying, hearing [2]error
	var heard [2]int64
	for i, p := range peers {
		wg.Go(func() { saying[i] = say(p, sequence(i+1), lengths[i], reset && i == 0) })
		wg.Go(func() { heard[i], hearing[i] = hear(p, sequence(2-i)) })
	}
	wg.Wait()
	<-s.Done()
	res := s.Result()
	c.count.Add(1)
	c.bytes.Add(heard[0] + heard[1])
	c.redirected.Add(res.Stats.AToB.Redirected + res.Stats.BToA.Redirected)
	if reset {
		c.resets.Add(1)
		if errors.Is(hearing[1], errOther) || errors.Is(hearing[0], errOther) {
			return errors.Join(hearing[:]...)
		}
		if hearing[1] == nil && saying[1] == nil { // who is told first is told alone
			return fmt.Errorf("a reset came as an end of file, after %d of %d bytes: %v", heard[1], lengths[0], res)
		}
		return nil
	}
	if err := errors.Join(append(saying[:], hearing[:]...)...); err != nil {
		return fmt.Errorf("%w: %v", err, res)
	}
	if heard[1] != lengths[0] || heard[0] != lengths[1] || res.AToB.Bytes != lengths[0] || res.BToA.Bytes != lengths[1] {
		return fmt.Errorf("%v of %v bytes arrived: %v", heard, lengths, res)
	}
	return nil
}

// connect returns both ends of a connection, the accepted one as a descriptor.
func connect(ln net.Listener, accepting *sync.Mutex) (*net.TCPConn, int, error) {
	accepting.Lock() // so that both ends are of the same connection
	defer accepting.Unlock()
	p, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		return nil, 0, err
	}
	a, err := ln.Accept()
	if err != nil {
		return nil, 0, err
	}
	defer a.Close()
	raw, err := a.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var fd int
	if cerr := raw.Control(func(n uintptr) { fd, err = sys.Dup(int(n)) }); cerr != nil {
		err = cerr
	}
	return p.(*net.TCPConn), fd, err
}

// say sends n bytes and a FIN, or a RST somewhere before.
func say(p *net.TCPConn, q sequence, n int64, reset bool) error {
	for at := int64(0); at < n; {
		part := q.part(at, int(min(n-at, 1+rand.Int64N(64<<10>>rand.IntN(16)))))
		if _, err := p.Write(part); err != nil {
			return err
		}
		at += int64(len(part))
		hesitate()
		if reset && at > n/2 {
			break
		}
	}
	if reset {
		_ = p.SetLinger(0) // a socket that is open
		return p.Close()
	}
	return p.CloseWrite()
}

func hesitate() {
	if rand.IntN(20) == 0 {
		time.Sleep(time.Duration(rand.IntN(5_000)) * time.Microsecond)
	}
}

var errOther = errors.New("other bytes arrived")

// hear checks what comes until the end.
func hear(p *net.TCPConn, q sequence) (at int64, err error) {
	b := make([]byte, 64<<10)
	for {
		n, err := p.Read(b[:1+rand.IntN(len(b))])
		if n > 0 {
			if err := q.check(b[:n], at); err != nil {
				return at, fmt.Errorf("%w: %w", errOther, err)
			}
		}
		at += int64(n)
		if err == io.EOF {
			return at, nil
		} else if err != nil {
			return at, err
		}
		hesitate()
	}
}
