package wire

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
)

// A hop is where packets to a peer leave, and its own come in.
type hop struct {
	ifindex int // of lo if the peer is on this machine
}

const (
	routeUnicast = 1 // RTN_UNICAST
	routeLocal   = 2 // RTN_LOCAL
)

// lookup finds the hop to a peer.
func (p *Plane) lookup(local, peer netip.Addr) (hop, Refusal, error) {
	options := &netlink.RouteGetOptions{SrcAddr: net.IP(local.AsSlice())}
	if zone := peer.Zone(); zone != "" {
		var err error
		if options.OifIndex, err = strconv.Atoi(zone); err != nil {
			options.Oif = zone
		}
	}
	routes, err := p.netlink.RouteGetWithOptions(net.IP(peer.AsSlice()), options)
	if err != nil || len(routes) == 0 {
		return hop{}, NoRoute, err
	}
	switch r := routes[0]; r.Type {
	case routeLocal:
		return hop{ifindex: p.loopback}, 0, nil
	case routeUnicast:
		return hop{ifindex: r.LinkIndex}, 0, nil
	}
	return hop{}, NoRoute, nil
}

// number has the link-local addresses of a leg be of the interface's number: its name means something in the network
// namespace of the plane alone, where not all is sent from.
func (p *Plane) number(l *leg) (Refusal, error) {
	zone := l.peer.Addr().Zone()
	if zone == "" {
		return 0, nil
	}
	link, err := p.netlink.LinkByName(zone)
	if err != nil {
		return NoRoute, fmt.Errorf("find interface %s: %w", zone, err)
	}
	l.place(link.Attrs().Index)
	return 0, nil
}

// ethernet says whether the packets of an interface have Ethernet headers.
func (p *Plane) ethernet(ifindex int) (bool, error) {
	l, err := p.netlink.LinkByIndex(ifindex)
	if err != nil {
		return false, fmt.Errorf("find interface %d: %w", ifindex, err)
	}
	encap := l.Attrs().EncapType
	return encap == "ether" || encap == "loopback", nil
}

// findLoopback returns the index of lo.
func findLoopback(h *netlink.Handle) (int, error) {
	l, err := h.LinkByName("lo")
	if err != nil {
		return 0, fmt.Errorf("find lo: %w", err)
	}
	return l.Attrs().Index, nil
}

func openNetlink() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
}
