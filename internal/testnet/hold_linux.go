package testnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/vishvananda/netlink"
)

// A Held gets the packets that [Namespace.Hold] takes aside.
type Held struct {
	ns     *Namespace
	detour detour
	back   net.HardwareAddr // where they go when they are released
}

// Hold takes TCP segments aside that come in by an interface: those of some kind, a condition of
// nft. By then tc programs have let them pass. It needs nft, and an interface of the name
// "held0" and one of "held1".
func (ns *Namespace) Hold(ctx context.Context, link, kind string) (*Held, error) {
	const in, out = heldIn, "held1"
	if err := Veth(ns, in, ns, out); err != nil {
		return nil, err
	}
	// Packets come back by an interface to which no route leads.
	if err := ns.Sysctl("net.ipv4.conf."+in+".rp_filter", "0"); err != nil {
		return nil, err
	}
	h := &Held{ns: ns}
	var near detour
	err := ns.Do(func() error {
		i, err := net.InterfaceByName(in)
		if err != nil {
			return err
		}
		h.back = i.HardwareAddr
		if err := h.detour.open(out, out); err != nil {
			return err
		}
		if err := near.open(in, in); err != nil {
			return errors.Join(err, h.detour.close())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hold what comes in by %s of %s: %w", link, ns.name, err)
	}
	err = errors.Join(near.reaches(ctx, &h.detour), h.detour.reaches(ctx, &near), near.close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold what comes in by %s of %s: %w", link, ns.name, err), h.detour.close())
	}
	err = ns.Run(ctx, fmt.Sprintf(`
		%s {
			chain arriving {
				type filter hook ingress device %q priority 0; policy accept;
				meta l4proto tcp %s counter fwd to %q
			}
		}`, holdTable, link, kind, in), "nft", "-f", "-")
	if err != nil {
		return nil, errors.Join(err, h.detour.close())
	}
	return h, nil
}

const (
	holdTable = "table netdev spliced_hold"
	heldIn    = "held0"
	// vnetHeader is what comes before a frame: the state of checksum and segmentation.
	vnetHeader = 10
)

// reaches sends frames until another one gets them: an interface that has just come up loses what
// it is to send, for a while.
func (d *detour) reaches(ctx context.Context, other *detour) error {
	const experiment = 0x88b5
	frame := make([]byte, vnetHeader+60)
	binary.BigEndian.PutUint16(frame[vnetHeader+12:], experiment)
	buf := make([]byte, 1<<17)
	for ctx.Err() == nil {
		to := d.to
		if err := syscall.Sendto(d.fd, frame, 0, &to); err != nil && err != syscall.ENOBUFS {
			return fmt.Errorf("send a frame: %w", err)
		}
		n, _, err := syscall.Recvfrom(other.fd, buf, 0)
		if err == nil && n >= vnetHeader+14 && binary.BigEndian.Uint16(buf[vnetHeader+12:]) == experiment {
			return nil
		}
	}
	return context.Cause(ctx)
}

// Next waits for a packet to be taken aside.
func (h *Held) Next(ctx context.Context) ([]byte, error) {
	buf := make([]byte, 1<<17)
	for {
		n, _, err := syscall.Recvfrom(h.detour.fd, buf, 0)
		if err == nil {
			if isTCP(buf[vnetHeader:n]) {
				return buf[:n], nil
			}
			continue // the interface has a life of its own
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("nothing was taken aside: %w", context.Cause(ctx))
		}
		if err != syscall.EAGAIN && err != syscall.EINTR {
			return nil, fmt.Errorf("read what was taken aside: %w", err)
		}
	}
}

// Payload is how many bytes of TCP's payload are in a packet of IPv4 that was taken aside.
func Payload(packet []byte) int {
	ip := packet[vnetHeader+14:]
	tcp := ip[int(ip[0]&0xf)*4:]
	return len(tcp) - int(tcp[12]>>4)*4
}

// isTCP says whether an Ethernet frame has a TCP segment in it.
func isTCP(b []byte) bool {
	const headers = 14 + 20
	if len(b) < headers {
		return false
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case syscall.ETH_P_IP:
		return b[14+9] == syscall.IPPROTO_TCP
	case syscall.ETH_P_IPV6:
		return b[14+6] == syscall.IPPROTO_TCP
	}
	return false
}

// Release has a packet go on to the namespace's stack; no tc program sees it again.
func (h *Held) Release(packet []byte) error {
	copy(packet[vnetHeader:], h.back)
	to := h.detour.to
	if err := syscall.Sendto(h.detour.fd, packet, 0, &to); err != nil {
		return fmt.Errorf("release a packet: %w", err)
	}
	return nil
}

// Pass ends it for packets to come.
func (h *Held) Pass() error {
	// Not a test's context: it may have ended, and this has to be done.
	return h.ns.Run(context.Background(), "delete "+holdTable+"\n", "nft", "-f", "-")
}

// Close lets go of the rest: it is lost.
func (h *Held) Close() error {
	return errors.Join(h.detour.close(), h.ns.set(heldIn, "aside", (*netlink.Handle).LinkDel))
}
