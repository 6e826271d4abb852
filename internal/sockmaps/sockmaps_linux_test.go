package sockmaps_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/sockmaps"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// asNobody has the test binary list sockmaps instead of testing.
const asNobody = "list-sockmaps"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == asNobody {
		if _, err := sockmaps.List(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// pair returns the ends of a connection, the second as what was accepted.
func pair(t *testing.T, network, address string) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if near, err = net.Dial(network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

func inode(t *testing.T, c net.Conn) (inode uint64) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if outer := raw.Control(func(fd uintptr) {
		var id sys.FileID
		id, err = sys.Identify(int(fd))
		inode = id.Ino
	}); outer != nil || err != nil {
		t.Fatal(outer, err)
	}
	return inode
}

// membersOf returns those entries of a list that are of a socket.
func membersOf(l *sockmaps.Listing, inode uint64) (members []sockmaps.Member) {
	for _, m := range l.Members {
		if m.Inode == inode {
			members = append(members, m)
		}
	}
	return members
}

func mapOf(t *testing.T, l *sockmaps.Listing, id uint32) sockmaps.Map {
	t.Helper()
	i := slices.IndexFunc(l.Maps, func(m sockmaps.Map) bool { return m.ID == id })
	if i < 0 {
		t.Fatalf("map %d is not among %v", id, l.Maps)
	}
	return l.Maps[i]
}

// Sockets are found in either type of map, whatever its program, with their
// addresses; those that are in none are not.
func TestList(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	for _, test := range []struct {
		name, network, address string
		typ                    ebpf.MapType
		program, attach        string
		protocol               string
	}{
		{"sockmap", "tcp4", "127.0.0.1:0", ebpf.SockMap, "none", "", "tcp"},
		{"sockhash", "tcp4", "127.0.0.1:0", ebpf.SockHash, "skb-pass", "skb-verdict", "tcp"},
		{"IPv6", "tcp6", "[::1]:0", ebpf.SockHash, "msg-pass", "msg-verdict", "tcp"},
		{"unix", "unix", "@spliced-test-sockmaps", ebpf.SockMap, "skb-pass", "skb-verdict", "unix"},
	} {
		t.Run(test.name, func(t *testing.T) {
			testnet.Leaks(t)
			near, far := pair(t, test.network, test.address)
			m := testnet.NewSockmap(t, test.typ, test.program)
			m.Put(1, far.(syscall.Conn))
			if test.program == "none" {
				m.Put(2, far.(syscall.Conn)) // twice is still one socket
			}
			l, err := sockmaps.List()
			if err != nil {
				t.Fatal(err)
			}
			if got := membersOf(&l, inode(t, near)); len(got) != 0 {
				t.Errorf("the other end is in %v", got)
			}
			got := membersOf(&l, inode(t, far))
			if len(got) != 1 {
				t.Fatalf("found as %v", got)
			}
			found := mapOf(t, &l, got[0].MapID)
			if found.Type != test.typ.String() || found.Unknown != "" {
				t.Errorf("in %+v", found)
			}
			var attached []string
			for _, p := range found.Programs {
				attached = append(attached, p.Attach)
			}
			if strings.Join(attached, ",") != test.attach {
				t.Errorf("programs %v, want %q", found.Programs, test.attach)
			}
			if got[0].Protocol != test.protocol || got[0].Netns == 0 {
				t.Errorf("found as %+v", got[0])
			}
			if test.protocol != "tcp" {
				if got[0].Local.IsValid() || got[0].Remote.IsValid() {
					t.Errorf("addresses %v, %v", got[0].Local, got[0].Remote)
				}
				return
			}
			conn, err := sockmaps.ParseConn(near.LocalAddr().String() + "-" + near.RemoteAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			if !conn.Has(&got[0]) || got[0].Local != conn.B {
				t.Errorf("found as %+v, want an end of %v", got[0], conn)
			}
			conn.A = netip.AddrPortFrom(conn.A.Addr(), conn.A.Port()+1)
			if conn.Has(&got[0]) {
				t.Errorf("%+v is no end of %v", got[0], conn)
			}
			if err := m.Delete(1); err != nil {
				t.Fatal(err)
			}
			if test.program == "none" {
				if err := m.Delete(2); err != nil {
					t.Fatal(err)
				}
			}
			if l, err = sockmaps.List(); err != nil || len(membersOf(&l, inode(t, far))) != 0 {
				t.Errorf("after it has left: %v, %v", l.Members, err)
			}
		})
	}
}

// More sockets than one read of the iterator returns.
func TestListMany(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockHash, KeySize: 4, ValueSize: 4, MaxEntries: 512})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	want := map[uint64]bool{}
	for i := range uint32(200) {
		near, far := pair(t, "tcp4", "127.0.0.1:0")
		for n, c := range []net.Conn{near, far} {
			raw, err := c.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if outer := raw.Control(func(fd uintptr) { err = m.Put(2*i+uint32(n), uint32(fd)) }); outer != nil || err != nil {
				t.Fatal(outer, err)
			}
			want[inode(t, c)] = true
		}
	}
	l, err := sockmaps.List()
	if err != nil {
		t.Fatal(err)
	}
	for number := range want {
		if got := membersOf(&l, number); len(got) != 1 {
			t.Errorf("socket %d: %v", number, got)
		}
	}
}

func TestSocketsOf(t *testing.T) {
	testnet.Leaks(t)
	near, far := pair(t, "tcp4", "127.0.0.1:0")
	sockets, err := sockmaps.SocketsOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{near, far} {
		number := inode(t, c)
		if !slices.ContainsFunc(sockets, func(s sockmaps.Socket) bool { return s.Inode == number }) {
			t.Errorf("socket %d is not among %v", number, sockets)
		}
	}
	if _, err := sockmaps.SocketsOf(1 << 30); err == nil || !strings.Contains(err.Error(), "no process 1073741824") {
		t.Errorf("error %v", err)
	}
}

// Who may not open maps of others is told why.
func TestListUnprivileged(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	const nobody = 65534
	cmd := testnet.AsUser(t, nobody, asNobody)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "CAP_SYS_ADMIN") {
		t.Errorf("error %v, %q; want CAP_SYS_ADMIN named", err, stderr.String())
	}
}
