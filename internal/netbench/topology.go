package netbench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"

	"github.com/spliced-io/spliced/internal/testnet"
)

// The topologies.
const (
	TopologyAuto     = "auto" // netns if this user may, or else loopback
	TopologyLoopback = "loopback"
	TopologyNetns    = "netns"
	TopologyLocal    = "netns-local" // C is on B: the relay's way to it is by lo
	TopologyRemote   = "remote"      // in a [File] only: source and sink were started by hand
)

// poolB has the sink's addresses where C is on B, as testnet.PoolC has them else.
const poolB = "10.86.0.0/16"

// topology is where A, B and C are. Each round takes new addresses, so that
// what an earlier one has left (TIME_WAIT) is not in its way.
type topology struct {
	name  string
	chain *testnet.Chain // nil on loopback
	local bool           // C is on B
	round int
}

// newTopology makes it. The caller closes it.
func newTopology(name string) (*topology, error) {
	if name == TopologyLoopback {
		return &topology{name: name}, nil
	}
	chain, err := testnet.NewChain()
	if err != nil {
		if name == TopologyAuto {
			return &topology{name: TopologyLoopback}, nil
		}
		return nil, fmt.Errorf("topology netns: %w", err)
	}
	t := &topology{name: TopologyNetns, chain: chain}
	if name == TopologyLocal {
		t.name, t.local = name, true
		if err := chain.B.AddLocal(poolB); err != nil {
			return nil, errors.Join(err, t.close())
		}
	}
	for _, ns := range []*testnet.Namespace{chain.A, chain.B} {
		for _, setting := range [][2]string{
			// More connections than one of these has ports for, and none of them
			// one that a proxy listens on.
			{"net.ipv4.ip_local_port_range", "10000 65535"},
			{"net.ipv4.tcp_tw_reuse", "1"},
		} {
			if err := ns.Sysctl(setting[0], setting[1]); err != nil {
				return nil, errors.Join(err, t.close())
			}
		}
	}
	return t, nil
}

func (t *topology) close() error {
	if t.chain == nil {
		return nil
	}
	return t.chain.Close()
}

func (t *topology) a() *testnet.Namespace {
	if t.chain == nil {
		return nil
	}
	return t.chain.A
}

func (t *topology) b() *testnet.Namespace {
	if t.chain == nil {
		return nil
	}
	return t.chain.B
}

func (t *topology) c() *testnet.Namespace {
	switch {
	case t.chain == nil:
		return nil
	case t.local:
		return t.chain.B
	}
	return t.chain.C
}

// direct says what is between A and C when no proxy is.
func (t *topology) direct() string {
	if t.chain == nil {
		return "nothing between A and C"
	}
	if t.local {
		return "C is on B"
	}
	return "B forwards IP"
}

// next begins a round.
func (t *topology) next() { t.round++ }

// sink is where the sink of the round listens; it chooses the port.
func (t *topology) sink() string {
	pool := 85
	if t.local {
		pool = 86
	}
	host := fmt.Sprintf("10.%d.%d.%d", pool, t.round/250%250, t.round%250+1)
	if t.chain == nil {
		host = loopbackHost(85, t.round)
	}
	return net.JoinHostPort(host, "0")
}

// proxy is where the proxy of the round is to listen.
func (t *topology) proxy(ctx context.Context) (string, error) {
	if t.chain != nil {
		const firstPort, ports = 2000, 8000 // below ip_local_port_range
		return net.JoinHostPort(testnet.AddrBA, fmt.Sprint(firstPort+t.round%ports)), nil
	}
	// Nobody else uses such an address, so the port stays free.
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(loopbackHost(83, t.round), "0"))
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	return ln.Addr().String(), ln.Close()
}

// sources is the network that the source takes its addresses from; empty where
// there is only one.
func (t *topology) sources() string {
	switch {
	case t.chain != nil:
		return testnet.PoolA
	case t.name == TopologyLoopback && runtime.GOOS == "linux":
		return "127.84.0.0/16"
	default:
		return ""
	}
}

// maxConns is how many connections each of so many rounds may make before A or
// B has no source port left, or 0 if it can't come to that: closed ones can be
// used again.
func (t *topology) maxConns(rounds int) int {
	const ports = 24000 // of the 28,232 that Linux gives out
	switch {
	case t.chain != nil, t.name == TopologyLoopback && reusesTimeWait():
		return 0
	case t.name == TopologyRemote:
		// All rounds have the same two addresses.
		return max(ports/rounds, 1)
	default:
		return ports / 2
	}
}

// maxPairs is how many connections B can have to one address of C.
func (t *topology) maxPairs() int {
	if t.chain != nil {
		return 55000
	}
	return 28000
}

// loopbackHost spreads the rounds over 127.0.0.0/8 where all of it is local.
func loopbackHost(net, round int) string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.%d.%d.%d", net, round/250%250, round%250+1)
}
