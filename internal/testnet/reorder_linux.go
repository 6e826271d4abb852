package testnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

// reordered marks packets that have been held back.
const reordered = 0x5eed

// Reorder holds back perMille of the TCP segments that leave by an interface, each by
// chance, for up to a delay, so that others overtake them. They stay as they are,
// bundles of up to 64 KiB too. It needs nft, and an interface of the name "slow0"
// and one of "slow1". stop ends it, and waits for it.
func (ns *Namespace) Reorder(ctx context.Context, link string, perMille int, delay time.Duration) (stop func() error, err error) {
	const in, out = "slow0", "slow1"
	if err := Veth(ns, in, ns, out); err != nil {
		return nil, err
	}
	d := &detour{delay: delay}
	if err := ns.Do(func() error { return d.open(out, link) }); err != nil {
		return nil, fmt.Errorf("reorder what leaves by %s of %s: %w", link, ns.name, err)
	}
	d.gone.Go(d.run)
	const table = "table netdev spliced_reorder"
	err = ns.Run(ctx, fmt.Sprintf(`
		%s {
			chain leaving {
				type filter hook egress device %q priority 0; policy accept;
				meta mark != %#x meta l4proto tcp numgen random mod 1000 < %d counter fwd to %q
			}
		}`, table, link, reordered, perMille, in), "nft", "-f", "-")
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return func() error {
		// Not ctx: it may have ended, and this has to be done.
		err := ns.Run(context.Background(), "delete "+table+"\n", "nft", "-f", "-")
		return errors.Join(err, d.close())
	}, nil
}

// A detour is a packet socket that gets what was taken aside, and sends it later.
type detour struct {
	fd    int
	to    syscall.SockaddrLinklayer
	delay time.Duration
	stop  sync.Once
	ended chan struct{}
	gone  sync.WaitGroup
}

func (d *detour) open(from, to string) (err error) {
	const (
		all          = 3 // ETH_P_ALL
		packet       = 263
		vnetHeader   = 15 // PACKET_VNET_HDR: the state of checksum and segmentation comes along
		ignoreOutput = 23 // PACKET_IGNORE_OUTGOING
	)
	d.ended = make(chan struct{})
	if d.fd, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = syscall.Close(d.fd)
		}
	}()
	var near, far *net.Interface
	if near, err = net.InterfaceByName(from); err != nil {
		return err
	}
	if far, err = net.InterfaceByName(to); err != nil {
		return err
	}
	wire := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, all))
	d.to = syscall.SockaddrLinklayer{Ifindex: far.Index, Protocol: wire}
	return errors.Join(
		syscall.SetsockoptInt(d.fd, packet, vnetHeader, 1),
		syscall.SetsockoptInt(d.fd, packet, ignoreOutput, 1),
		syscall.SetsockoptInt(d.fd, syscall.SOL_SOCKET, syscall.SO_MARK, reordered),
		// So that run can look whether it is to end.
		syscall.SetsockoptTimeval(d.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 20000}),
		syscall.Bind(d.fd, &syscall.SockaddrLinklayer{Protocol: wire, Ifindex: near.Index}),
	)
}

func (d *detour) run() {
	buf := make([]byte, 1<<17)
	for {
		n, _, err := syscall.Recvfrom(d.fd, buf, 0)
		select {
		case <-d.ended:
			return
		default:
		}
		if err != nil {
			continue
		}
		p := append([]byte(nil), buf[:n]...)
		wait := rand.N(d.delay)
		d.gone.Go(func() {
			time.Sleep(wait)
			to := d.to // which Sendto writes to
			// Lost, as any packet can be, when the interface has no room.
			_ = syscall.Sendto(d.fd, p, 0, &to)
		})
	}
}

func (d *detour) close() error {
	d.stop.Do(func() { close(d.ended) })
	d.gone.Wait()
	return syscall.Close(d.fd)
}
