package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary is also a horde of clients: each process has its own limit of
// descriptors and its own source address.
const beHorde = "SPLICED_TEST_HORDE"

// A hordeSpec says what the clients of a process do.
type hordeSpec struct {
	Kind   string         // "honest", "slow", "over" or "holder"
	Target netip.AddrPort // of the proxy; of a holder its own
	Source netip.Addr     // of the clients
	Count  int            // of slow ones; of those that a holder holds
	Rate   int            // of those that come, a second
	For    time.Duration  // honest ones come; the others until the input ends
}

// runHorde is such a process. It prints "there" when its clients are, and in the
// end "done" and what has become of them, as JSON.
func runHorde(args []string) error {
	var spec hordeSpec
	if err := json.Unmarshal([]byte(args[0]), &spec); err != nil {
		return err
	}
	if spec.Kind == "honest" {
		done, err := json.Marshal(spec.honest())
		if err == nil {
			_, err = fmt.Printf("done %s\n", done)
		}
		return err
	}
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	run := spec.over
	switch spec.Kind {
	case "slow":
		run = spec.slow
	case "holder":
		run = spec.holder
	}
	n, err := run(over)
	fmt.Println("done", n)
	return err
}

// choosePortLater has the port of a bound socket chosen with its target: one is enough for
// any number of targets.
func choosePortLater(fd int) error {
	const bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT
	return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindAddressNoPort, 1))
}

// connect begins a connection, without waiting for it.
func (s *hordeSpec) connect() (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = choosePortLater(fd); err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: s.Source.As4()})
	}
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: s.Target.Addr().As4(), Port: int(s.Target.Port())})
	}
	if err != nil && !errors.Is(err, syscall.EINPROGRESS) {
		_ = syscall.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// pace calls f so often a second until it fails or over is closed.
func pace(rate int, over <-chan struct{}, f func() error) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	begun, done := time.Now(), 0
	for {
		select {
		case <-over:
			return nil
		case now := <-tick.C:
			for due := int(now.Sub(begun).Seconds() * float64(rate)); done < due; done++ {
				if err := f(); err != nil {
					return err
				}
			}
		}
	}
}

var errAllThere = errors.New("all are there")

// slow holds connections, each of which begins a TLS handshake and says one byte
// of it every ten seconds. Those that are sent away stay away. It returns how many
// are left.
func (s *hordeSpec) slow(over <-chan struct{}) (left int, err error) {
	const interval = 10 * time.Second
	hello := clientHello("slow.test")
	type client struct{ fd, said int }
	var clients []client
	var mu sync.Mutex
	ended := make(chan struct{})
	var talking sync.WaitGroup
	talking.Go(func() {
		next := 0
		_ = pace(s.Count/int(interval/time.Second), ended, func() error {
			mu.Lock()
			defer mu.Unlock()
			if next < len(clients) {
				c := &clients[next]
				_, _ = syscall.Write(c.fd, hello[c.said:c.said+1]) // EPIPE: sent away
				c.said = min(c.said+1, len(hello)-2)
			}
			next = (next + 1) % s.Count
			return nil
		})
	})
	err = pace(s.Rate, over, func() error {
		fd, err := s.connect()
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if clients = append(clients, client{fd: fd}); len(clients) == s.Count {
			return errAllThere
		}
		return nil
	})
	if err == errAllThere {
		fmt.Println("there")
		<-over
		err = nil
	}
	close(ended)
	talking.Wait()
	for _, c := range clients {
		const established = 1
		if info, err := syscall.GetsockoptInt(c.fd, syscall.IPPROTO_TCP, syscall.TCP_INFO); err == nil && info&0xff == established { // tcpi_state
			left++
		}
	}
	return left, err
}

// hordeHeld is how many connections a client may have in these tests.
const hordeHeld = 50

// over holds as many connections as one client may have, and connects again and
// again to be sent away. It returns how many were.
func (s *hordeSpec) over(over <-chan struct{}) (refused int, err error) {
	for range hordeHeld {
		if _, err := s.connect(); err != nil {
			return 0, err
		}
	}
	fmt.Println("there")
	var open []int
	err = pace(s.Rate, over, func() error {
		fd, err := s.connect()
		if err != nil {
			return err
		}
		open = append(open, fd)
		// Those before it have had their time, but for the last few.
		for len(open) > s.Rate/100 {
			var b [1]byte
			if _, err := syscall.Read(open[0], b[:]); errors.Is(err, syscall.ECONNRESET) {
				refused++
			} else if len(open) < s.Rate/2 {
				break
			}
			_ = syscall.Close(open[0])
			open = open[1:]
		}
		return nil
	})
	return refused, err
}

// holder is the least that can be done about a flood: it accepts whoever comes and
// holds so many, of whom the oldest is sent a RST for the next. What honest clients of
// another process meet meanwhile is the flood's own doing. It returns how many came.
func (s *hordeSpec) holder(over <-chan struct{}) (came int, err error) {
	ln, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Bind(ln, &syscall.SockaddrInet4{Addr: s.Target.Addr().As4()})
	}
	if err == nil {
		err = syscall.Listen(ln, 4096)
	}
	if err != nil {
		return 0, err
	}
	self, err := syscall.Getsockname(ln)
	if err != nil {
		return 0, err
	}
	fmt.Printf("holds at 127.0.0.1:%d\n", self.(*syscall.SockaddrInet4).Port)
	go func() {
		<-over
		_ = syscall.Shutdown(ln, syscall.SHUT_RD) // ends the accept
	}()
	held := make([]int, max(1, s.Count))
	for {
		fd, _, err := syscall.Accept4(ln, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, syscall.EINVAL):
			return came, nil
		case err != nil:
			return came, os.NewSyscallError("accept4", err)
		}
		oldest := &held[came%len(held)]
		if came >= len(held) {
			_ = syscall.SetsockoptLinger(*oldest, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
			_ = syscall.Close(*oldest)
		}
		*oldest = fd
		came++
	}
}

// A poll is what honest clients have met.
type poll struct {
	Took   []time.Duration
	Failed int
}

// quantile is in milliseconds.
func (p *poll) quantile(q float64) float64 {
	if len(p.Took) == 0 {
		return -1
	}
	slices.Sort(p.Took)
	return float64(p.Took[min(len(p.Took)-1, int(q*float64(len(p.Took))))].Microseconds()) / 1e3
}

// honest has clients come, each at its time whatever became of those before. Those
// of the first moments, when the process itself is new, don't count.
func (s *hordeSpec) honest() *poll {
	const warm = 200 * time.Millisecond
	runtime.GOMAXPROCS(64) // threads that wait in system calls, most of them
	hello := clientHello("honest.test")
	p := &poll{}
	var mu sync.Mutex
	var clients sync.WaitGroup
	begun := time.Now()
	over := make(chan struct{})
	time.AfterFunc(s.For+warm, func() { close(over) })
	from := s.Source
	_ = pace(s.Rate, over, func() error {
		if from = from.Next(); from.As4()[3] == 100 {
			from = s.Source // none has as many connections as it may have
		}
		clients.Go(func() {
			due := time.Now()
			err := s.converse(from, hello)
			took := time.Since(due)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				p.Failed++
			case due.Sub(begun) >= warm:
				p.Took = append(p.Took, took)
			}
		})
		return nil
	})
	clients.Wait()
	return p
}

// converse sends a hello from an address, and wants it back.
func (s *hordeSpec) converse(from netip.Addr, hello []byte) error {
	late := time.Now().Add(patience / 2)
	d := net.Dialer{Deadline: late, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	c, err := d.Dial("tcp", s.Target.String())
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(late)
	if _, err := c.Write(hello); err != nil {
		return err
	}
	b := make([]byte, len(hello))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if !bytes.Equal(b, hello) {
		return errors.New("other bytes come back")
	}
	return nil
}

// plainEcho is a server that sends back what it is sent, with a descriptor for each
// connection: [io.Copy] would take three.
func plainEcho(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				b := make([]byte, 4<<10)
				for {
					n, err := c.Read(b)
					if err == nil {
						_, err = c.Write(b[:n])
					}
					if err != nil {
						return // the client has left
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		serving.Wait()
	})
	return ln.Addr().String()
}

// clientHello returns the first message of a TLS client that asks for name.
func clientHello(name string) []byte {
	here, there := net.Pipe()
	go func() {
		_ = tls.Client(here, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
	}()
	defer there.Close()
	b := make([]byte, 4096)
	n, _ := there.Read(b)
	return b[:n]
}

// A horde is a running process of that kind.
type horde struct {
	*process
	stdin io.Closer
}

func startHorde(t *testing.T, spec hordeSpec) *horde {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, string(text))
	if spec.Kind == "slow" || spec.Kind == "over" {
		// A flood is made elsewhere: here it takes the time that others leave.
		cmd = exec.Command("chrt", "--idle", "0", exe, string(text))
	}
	cmd.Env = append(os.Environ(), beHorde+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	return &horde{process: start(t, cmd), stdin: stdin}
}

// outcome waits for what it says in the end.
func (h *horde) outcome(t *testing.T) string {
	t.Helper()
	said := h.stdout.await(t, "done ")
	if code := h.wait(); code != 0 {
		t.Fatalf("a horde has failed: %s", h.stderr.all())
	}
	return strings.TrimPrefix(said, "done ")
}

// disperse ends it, and returns what it says of itself.
func (h *horde) disperse(t *testing.T) int {
	t.Helper()
	_ = h.stdin.Close()
	n, err := strconv.Atoi(h.outcome(t))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// pollHonest has honest clients come, so many a second, for some time.
func pollHonest(t *testing.T, addr string, rate int, during time.Duration) *poll {
	t.Helper()
	h := startHorde(t, hordeSpec{
		Kind: "honest", Target: netip.MustParseAddrPort(addr), Source: netip.MustParseAddr("127.0.97.1"), Rate: rate, For: during,
	})
	p := &poll{}
	if err := json.Unmarshal([]byte(h.outcome(t)), p); err != nil {
		t.Fatal(err)
	}
	return p
}
