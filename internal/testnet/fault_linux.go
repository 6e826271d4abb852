package testnet

import (
	"context"
	"fmt"
)

// Lose drops perMille of the TCP segments that arrive in the namespace, each
// by chance, forwarded ones included; 1000 cuts it off. It replaces an earlier
// fault and needs nft. A segment may be a bundle of up to 64 KiB (GSO) on a
// veth pair. Packets that a tc program redirects never meet it.
func (ns *Namespace) Lose(ctx context.Context, perMille int) error {
	var chance string
	switch {
	case perMille <= 0:
		return ns.Heal(ctx)
	case perMille < 1000:
		chance = fmt.Sprintf("numgen random mod 1000 < %d", perMille)
	}
	return ns.nft(ctx, fmt.Sprintf(`
		table inet spliced_fault {
			chain arriving {
				type filter hook prerouting priority -300; policy accept;
				meta l4proto tcp %s counter drop
			}
		}`, chance))
}

// Heal ends the fault.
func (ns *Namespace) Heal(ctx context.Context) error { return ns.nft(ctx, "") }

func (ns *Namespace) nft(ctx context.Context, table string) error {
	// Adding the table makes deleting it right when there is none yet.
	const clean = "table inet spliced_fault {}\ndelete table inet spliced_fault\n"
	return ns.Run(ctx, clean+table, "nft", "-f", "-")
}
