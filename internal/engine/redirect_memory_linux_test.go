package engine

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// kernelMemory counts the bytes of the machine's memory that belong to no
// process, to no file and to nothing that the kernel names, and its slabs that
// can't be reclaimed: where the network's buffers are, whoever is charged for
// them. Free pages that a processor keeps for itself count as free.
func kernelMemory(t *testing.T) int64 {
	t.Helper()
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	_ = read("/proc/sys/vm/stat_refresh") // processors keep counts for themselves too
	info := make(map[string]int64)
	for line := range strings.Lines(read("/proc/meminfo")) {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "kB" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			info[strings.TrimSuffix(f[0], ":")] = n << 10
		}
	}
	n := info["MemTotal"]
	for _, known := range []string{
		"MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "SReclaimable", "KernelStack", "PageTables", "SecPageTables", "Percpu", "VmallocUsed",
	} {
		n -= info[known]
	}
	for _, count := range keptPages.FindAllStringSubmatch(read("/proc/zoneinfo"), -1) {
		pages, err := strconv.ParseInt(count[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		n -= pages * int64(os.Getpagesize())
	}
	return n
}

var keptPages = regexp.MustCompile(`(?m)^\s+count:\s+(\d+)$`)

// charged is the memory that a socket's buffers are charged with (SO_MEMINFO).
func charged(t *testing.T, fd int) int64 {
	t.Helper()
	const option, received, queued, options, backlog = 55, 0, 5, 6, 7
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	if _, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), syscall.SOL_SOCKET, option,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		t.Fatal(errno)
	}
	return int64(info[received]) + int64(info[queued]) + int64(info[options]) + int64(info[backlog])
}

// A stream is what is sent from one peer to the other.
type stream struct {
	from, to   *net.TCPConn
	fd         int // from's
	sent, read int64
}

// A stall is many streams at once, of which as much is sent as there is room for
// while nothing is read.
type stall struct {
	t       *testing.T
	streams []*stream
	fds     []int // of all sockets on the way
}

// add takes a pair of connections in, of which there is a stream from each of the
// named peers.
func (s *stall) add(fds [2]int, peers [2]*net.TCPConn, from ...int) {
	s.t.Helper()
	for i, p := range peers {
		if err := p.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
			s.t.Fatal(err)
		}
		fd, err := sys.Dup(fds[i]) // a session closes its own
		if err != nil {
			s.t.Fatal(err)
		}
		own := descriptor(s.t, p)
		s.fds = append(s.fds, fd, own)
		if slices.Contains(from, i) {
			s.streams = append(s.streams, &stream{from: p, to: peers[1-i], fd: own})
		}
	}
}

func (s *stall) close() {
	for _, fd := range s.fds {
		_ = sys.Close(fd)
	}
}

// each runs f for all streams at once.
func (s *stall) each(f func(q sequence, x *stream) error) (wait func()) {
	errs := make([]error, len(s.streams))
	var wg sync.WaitGroup
	for i, x := range s.streams {
		wg.Go(func() { errs[i] = f(sequence(i), x) })
	}
	return func() {
		s.t.Helper()
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			s.t.Fatal(err)
		}
	}
}

// push sends up to most bytes in each stream, until all of it is sent or there is
// no room anywhere.
func (s *stall) push(most int64) {
	s.t.Helper()
	var senders atomic.Int64
	senders.Store(int64(len(s.streams)))
	wait := s.each(func(q sequence, x *stream) error {
		defer senders.Add(-1)
		if err := x.from.SetWriteDeadline(time.Time{}); err != nil {
			return err
		}
		for end := x.sent + most; x.sent < end; {
			n, err := x.from.Write(q.part(x.sent, int(min(sequencePart, end-x.sent))))
			x.sent += int64(n)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	// The buffers are as they were a while ago, and no sender has anything to do.
	const calm = 200 * time.Millisecond
	last, since := s.queues(), time.Now()
	for deadline := time.Now().Add(2 * patience); senders.Load() > 0; time.Sleep(calm / 10) {
		if time.Now().After(deadline) {
			s.t.Error("the senders are not blocked")
			break
		}
		if now := s.queues(); s.writable() || !slices.Equal(now, last) {
			last, since = now, time.Now()
		} else if time.Since(since) > calm {
			break
		}
	}
	for _, x := range s.streams {
		_ = x.from.SetWriteDeadline(time.Now())
	}
	wait()
}

// queues is what the sockets are charged with.
func (s *stall) queues() (all []int64) {
	s.t.Helper()
	for _, fd := range s.fds {
		all = append(all, charged(s.t, fd))
	}
	return all
}

// writable says whether a sender has room.
func (s *stall) writable() bool {
	for _, x := range s.streams {
		if sys.Writable(x.fd) {
			return true
		}
	}
	return false
}

// pull reads all that was sent.
func (s *stall) pull() {
	s.t.Helper()
	s.each(func(q sequence, x *stream) error {
		b := make([]byte, 64<<10)
		for x.read < x.sent {
			n, err := x.to.Read(b[:min(int64(len(b)), x.sent-x.read)])
			if err := q.check(b[:n], x.read); err != nil {
				return err
			}
			x.read += int64(n)
			if err != nil {
				return err
			}
		}
		return nil
	})()
}

// held is what the machine holds of a stream, in bytes.
type held struct{ machine, charged, payload int64 }

func (h held) beyond() int64 { return h.machine - h.charged }

func (h held) String() string {
	return fmt.Sprintf("%d of the machine's memory, %d charged to the sockets, %d of payload: %+d beyond the buffers",
		h.machine, h.charged, h.payload, h.beyond())
}

// measure has the streams stall, looks, and has all of it read.
func (s *stall) measure(most int64) held {
	s.t.Helper()
	before := kernelMemory(s.t)
	s.push(most)
	h := held{machine: kernelMemory(s.t) - before}
	for _, n := range s.queues() {
		h.charged += n
	}
	for _, x := range s.streams {
		h.payload += x.sent - x.read
	}
	s.pull()
	n := int64(len(s.streams))
	h = held{h.machine / n, h.charged / n, h.payload / n}
	s.t.Log(h)
	return h
}

// beyondMost is what may be held of a direction beyond the sockets' buffers.
const beyondMost = 4 << 20

// What the program has redirected is charged to nobody. It is measured as the
// machine's memory, over many streams at once, lest it should matter what else
// happens on the machine.
func TestRedirectMemory(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	stalls := 3
	if soak() {
		stalls = 20
	}
	var r Reactor
	empty := emptyMaps(t, &r)
	s := &stall{t: t}
	defer s.close()
	var sessions []owned
	for range 8 {
		o := startRedirected(t, &r, Limits{})
		s.add(o.fds, o.peers, 0, 1)
		o.carry()
		sessions = append(sessions, o)
	}
	var all []held
	for range stalls {
		all = append(all, s.measure(1<<30))
	}
	slices.SortFunc(all, func(a, b held) int { return cmp.Compare(a.beyond(), b.beyond()) })
	median := all[stalls/2]
	t.Logf("median of %d stalls with %d streams each: %v", stalls, len(s.streams), median)
	if n := median.beyond(); n > beyondMost {
		t.Errorf("%d bytes were held beyond the sockets' buffers", n)
	}
	for _, o := range sessions {
		if d := o.Stats(); d.AToB.Redirected == 0 || d.BToA.Redirected == 0 {
			t.Errorf("%+v: want bytes redirected both ways", d)
		}
		o.end()
	}
	empty()
}

// A plain redirect holds all that is sent, and it is seen: what the test above
// would find without the engine's bounds.
func TestPlainRedirectMemory(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	const most = 32 << 20
	s := &stall{t: t}
	defer s.close()
	for range 4 {
		fds, peers := ends(t)
		m := testnet.NewSockmap(t, ebpf.SockMap, "skb-to-1")
		for i, fd := range fds {
			defer sys.Close(fd)
			m.PutDescriptor(uint32(i), fd)
		}
		s.add(fds, peers, 0)
	}
	h := s.measure(most)
	if h.payload != most || h.beyond() < beyondMost {
		t.Errorf("%v: want %d of payload, most of it beyond the buffers", h, most)
	}
}
