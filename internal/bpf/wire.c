//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Packet-level splicing. Two TCP connections, A to B and B to C, have become a
// pair of entries in the flows map, one a direction, each under the tuple of
// the packets that arrive at B. wire_ingress runs on every interface that such
// packets come in by. It rewrites them so that A and C talk to each other, each
// believing that it talks to B.
//
// While B's sockets carry the pair, the entries only watch (PASS). Bytes keep
// their order from one side to the other, so the distance between the two legs'
// numbers of a byte is a constant, and no rest is needed to switch: from a cut
// on, the end of what the socket has received, data goes across (DRAINING),
// while the sockets deliver what is before it. Both may deliver the same bytes:
// they have the same numbers. When the receivers have acknowledged all that the
// sockets ever received, all goes across (SPLICED).
//
// At the switch a socket has no hole, and nothing is on its way to it but what comes in
// that very moment: all that was passed up it has received. Once the other direction has
// moved on, its sender would take what the socket says for old, and never know whether a
// hole was filled.

#include "wire_flow.h"
#include "wire_segment.h"
#include "wire_watch.h"
#include "wire_belief.h"
#include "wire_account.h"
#include "wire_divided.h"
#include "wire_forward.h"
#include "wire_drain.h"
#include "wire_icmp.h"
#include "wire_control.h"

SEC("tc")
int wire_ingress(struct __sk_buff *skb)
{
	struct segment s = {};
	__u32 state;
	struct flow *peer = NULL;
	struct flow *f;
	__u64 now;
	int copied, rest = parse(skb, &s);

	if (rest) {
		// Of the rest as little as can be is looked at: it is others'.
		if (rest == DIVIDED)
			return divided(skb);
		switch (icmp(skb)) {
		case 4:
			return unreachable(skb, 0);
		case 6:
			return unreachable(skb, 1);
		}
		return TCX_NEXT;
	}
	f = bpf_map_lookup_elem(&flows, &s.key);
	copied = skb->mark == SHOW_MARK;
	if (!f)
		return copied ? TCX_DROP : TCX_NEXT; // its entry was taken out
	if (foreign(skb))
		return TCX_NEXT;
	// A priority is for the link that it came by.
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return TCX_DROP;
	now = bpf_ktime_get_ns();
	stamp(skb, &s);
	state = *(volatile __u32 *)&f->state;
	if (state == DRAINING)
		fence(f); // begin may have written what belongs to it this moment; SPLICED comes much later
	if (state == PASS) {
		if (!plausible(skb, &s))
			return TCX_NEXT;
		state = watch(f, &s, is_signed(skb, &s));
		if (state == PASS)
			return TCX_NEXT;
	}
	// After OP_END all packets are the stack's too, which answers with a RST.
	if (s.syn && f->over)
		f->over = REPLACED;
	if (f->over == REPLACED || f->verdict == ENDED_HAND)
		return copied ? TCX_DROP : TCX_NEXT;
	if (copied) {
		skb->mark = 0;
		return state == DRAINING ? show(skb, f, &s) : TCX_DROP;
	}
	if (state == DRAINING) {
		int is_credible = credible(f, &s, &peer);

		if (is_credible)
			acknowledge(f, &s, now);
		switch (drain(f, &s, is_credible)) {
		case UP:
			return lower(skb, f, &s);
		case SHOW:
			return show(skb, f, &s);
		case BOTH:
			__sync_fetch_and_add(&f->shows, 1);
			skb->mark = SHOW_MARK;
			// Failing, it is as if the copy had been lost: the next
			// acknowledgement says the same.
			(void)bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
			skb->mark = 0;
			break;
		case ACROSS:
			break;
		}
	}
	if (!fits_link(skb, f, &s, now) || !account(f, &s, now))
		return TCX_DROP;
	return forward(skb, f, &s, state == DRAINING);
}

// loops says whether a packet that leaves by lo, and is rewritten to come in there, can
// just go on. It keeps the route that its socket has found: one to another address of
// this machine does, unless one of the sockets is bound to an interface, by which the
// receiver would be looked for. IPv6 has that of the address in the route.
static __always_inline int loops(const struct __sk_buff *skb, const struct flow *f, const struct segment *s)
{
	const struct bpf_sock *socket = skb->sk;
	const __u32 *was = s->key.daddr, *is = f->rewrite.to.daddr;

	if (!socket || socket->bound_dev_if)
		return 0;
	return !s->v6 || (was[0] == is[0] && was[1] == is[1] && was[2] == is[2] && was[3] == is[3]);
}

// leaves takes note of what wire_ingress can't see of a pair that the sockets carry: whether a
// packet's sender is bound to another interface than lo. Packets find it by the interface of
// their route, and one that comes across by lo has lo.
static __always_inline void leaves(const struct __sk_buff *skb, struct flow *f)
{
	const struct bpf_sock *socket = skb->sk;

	if (socket && socket->bound_dev_if && socket->bound_dev_if != skb->ifindex)
		f->unfit = NODEV;
	f->left = 1;
}

// wire_egress is of lo, where wire_ingress would see the same packets a moment later. Those
// of settled flows need not make that way: they leave by the other interface at once, or
// go round once instead of twice. All others are left to wire_ingress.
SEC("tc")
int wire_egress(struct __sk_buff *skb)
{
	struct segment s = {};
	struct flow *f;
	__u64 now;
	int round;

	// Also what has come by an interface, and was sent here: it may be another program's, and of a
	// pair of ours.
	if (parse(skb, &s))
		return TCX_NEXT;
	f = bpf_map_lookup_elem(&flows, &s.key);
	if (!f)
		return TCX_NEXT;
	if (*(volatile __u32 *)&f->state != SPLICED) {
		leaves(skb, f);
		return TCX_NEXT;
	}
	if (s.syn || f->over || f->verdict || *(volatile __u8 *)&f->barred)
		return TCX_NEXT;
	round = f->rewrite.ifindex == skb->ifindex;
	if (round && !loops(skb, f, &s))
		return TCX_NEXT;
	now = bpf_ktime_get_ns();
	stamp(skb, &s);
	if (!round && !fits_link(skb, f, &s, now))
		return TCX_DROP;
	if (!account(f, &s, now))
		return TCX_DROP; // it was barred this moment
	if (!round)
		return forward(skb, f, &s, 0);
	if (!recast(skb, f, &s, 0)) {
		__sync_fetch_and_add(&f->errors, 1);
		return TCX_DROP;
	}
	return TCX_NEXT;
}

// Makes the type known to BTF, and so to Go.
const struct command *command_type __attribute__((unused));
const struct oversize *oversize_type __attribute__((unused));

char _license[] SEC("license") = "Dual BSD/GPL";
