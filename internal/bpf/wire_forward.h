// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// A segment goes across: rewritten, and out by the other interface.

#ifndef WIRE_FORWARD_H
#define WIRE_FORWARD_H

#include "wire_divided.h"
#include "wire_headers.h"

// Every link takes packets of so many bytes.
#define SMALL 576
#define WARN_PAUSE (10 * 1000 * 1000ULL) // ns

// fits_link says whether a packet is as small as the interface that it leaves by wants it. Else
// it is to be dropped, and its sender told, at most once in WARN_PAUSE; or, where it asks for the packet to be divided, the pair
// is for its sockets.
static __always_inline int fits_link(struct __sk_buff *skb, struct flow *f, const struct segment *s, __u64 now)
{
	__u32 size = s->l4 - s->l3 - s->jumbo + s->hdrlen + (skb->gso_size ? skb->gso_size : s->len);
	__u32 mtu = size;
	struct oversize *o;

	// lo looks at nothing that it delivers.
	if (size <= SMALL || f->rewrite.ifindex == LOOPBACK)
		return 1;
	// An interface that is gone says nothing.
	bpf_check_mtu(skb, f->rewrite.ifindex, &mtu, 0, 0);
	if (size <= mtu)
		return 1;
	__sync_fetch_and_add(&f->too_big, 1);
	if (s->fragable) {
		divide(f, &s->key);
		return 0;
	}
	if (now - f->warned < WARN_PAUSE)
		return 0;
	o = bpf_ringbuf_reserve(&ended, sizeof(*o), 0);
	if (!o)
		return 0; // it will be sent again
	f->warned = now;
	__builtin_memcpy(&o->key, &s->key, sizeof(o->key));
	o->mtu = mtu;
	o->size = size;
	o->seq = s->seq;
	bpf_ringbuf_submit(o, 0);
	return 0;
}

// recast changes the segment's headers. It says whether that was done.
static __noinline int recast(struct __sk_buff *skb, struct flow *f, const struct segment *s, int draining)
{
	const struct rewrite *r = &f->rewrite;
	struct walk w = {};
	__be32 *tcp = w.h + TCP_AT;
	__u32 n = s->hdrlen;
	__u32 ack = s->ack + r->ack_add;
	__u64 window = (__u64)s->window << (r->window_in & 15);
	__u64 sum = 0;
	__u32 addresses;
	long err;

	asm volatile("%0 &= 63" : "+r"(n)); // at most 60: the verifier has lost that
	if (n < sizeof(struct tcphdr) || s->hops <= 1)
		return 0;
	if (bpf_skb_load_bytes(skb, s->l4, tcp, n))
		return 0;

	if (draining && owes(f) && before(ack, f->owned)) {
		// The socket has acknowledged that, and its sender may have
		// forgotten it. The right edge of the window stays where it is.
		__u32 lead = f->owned - ack;

		ack = f->owned;
		window = window > lead ? window - lead : 0;
	}
	if (draining) {
		const struct flow *peer = opposite(f);

		// As long as the receiver gets bytes from the socket it must not
		// move on further than the socket has promised: it would take the
		// socket's acknowledgement for too old (RFC 5961), and its data
		// with it. What it has sent it was promised.
		if (peer && owes(peer)) {
			__u32 most = before(f->promised, peer->end) ? peer->end : f->promised;

			if (before(most, ack + (__u32)window))
				window = before(ack, most) ? most - ack : 0;
		}
	}
	window >>= r->window_out & 15;
	if (window > 65535)
		window = 65535;

	alter(tcp, *(__be32 *)&r->to.sport, &sum); // both ports
	alter(tcp + 1, bpf_htonl(s->seq + r->seq_add), &sum);
	if (s->acks)
		alter(tcp + 2, bpf_htonl(ack), &sum);
	// Urgent bytes keep their place in the stream, as when it is relayed: no URG, no
	// pointer.
	alter(tcp + 3, (tcp[3] & bpf_htonl(0xffdf0000)) | bpf_htonl(window), &sum);
	alter(tcp + 4, tcp[4] & bpf_htonl(0xffff0000), &sum);
	if (n > sizeof(struct tcphdr)) {
		__be32 *o = tcp + 5;
		__u32 tsecr_add = s->acks ? r->tsecr_add : 0;
		// Of what the socket has delivered: it echoes the socket's clock.
		int echoless = draining && !before(f->cut_ack, s->ack);

		if (n == 32 && o[0] == PLAIN_TIMESTAMPS) {
			alter(o + 1, bpf_htonl(bpf_ntohl(o[1]) + r->tsval_add), &sum);
			alter(o + 2, echoless ? 0 : bpf_htonl(bpf_ntohl(o[2]) + tsecr_add), &sum);
		} else {
			w.n = n;
			w.at = sizeof(struct tcphdr);
			w.ack_add = r->ack_add;
			w.tsval_add = r->tsval_add;
			w.tsecr_add = tsecr_add;
			w.echoless = echoless;
			sum += options(&w);
		}
	}

	if (s->v6) {
		__be32 *ip = w.h + V6_AT;

		ip[0] = s->first;
		__builtin_memcpy(ip + 1, s->key.saddr, 32);
		addresses = readdress6(ip, &r->to);
		if (!s->jumbo) {
			err = bpf_skb_store_bytes(skb, s->l3 + V6_FIRST, ip, 36 + n, BPF_F_INVALIDATE_HASH);
		} else { // it is in between, and stays as it is
			err = bpf_skb_store_bytes(skb, s->l3 + V6_FIRST, ip, 36, BPF_F_INVALIDATE_HASH);
			if (!err)
				err = bpf_skb_store_bytes(skb, s->l4, tcp, n, 0);
		}
	} else {
		__be32 *ip = w.h + V4_AT;

		ip[0] = s->first;
		ip[1] = s->key.saddr[3];
		ip[2] = s->key.daddr[3];
		addresses = readdress4(ip, &r->to);
		if (s->l4 == s->l3 + sizeof(struct iphdr)) {
			err = bpf_skb_store_bytes(skb, s->l3 + V4_FIRST, ip, 12 + n, BPF_F_INVALIDATE_HASH);
		} else { // options in between
			err = bpf_skb_store_bytes(skb, s->l3 + V4_FIRST, ip, 12, BPF_F_INVALIDATE_HASH);
			if (!err)
				err = bpf_skb_store_bytes(skb, s->l4, tcp, n, 0);
		}
	}
	// One sum is of the addresses alone where the rest is left to the interface.
	return !err &&
	       !bpf_l4_csum_replace(skb, s->l4 + offsetof(struct tcphdr, check), 0, fold32(sum), 0) &&
	       !bpf_l4_csum_replace(skb, s->l4 + offsetof(struct tcphdr, check), 0, addresses, BPF_F_PSEUDO_HDR);
}

// forward sends a segment across.
static __always_inline int forward(struct __sk_buff *skb, struct flow *f, const struct segment *s, int draining)
{
	if (!recast(skb, f, s, draining)) {
		__sync_fetch_and_add(&f->errors, 1);
		return TCX_DROP;
	}
	// By way of lo too: there it brings a route along. Without one the input
	// path would take B's own addresses for martians as soon as the receiving
	// socket has forgotten its route.
	return bpf_redirect_neigh(f->rewrite.ifindex, NULL, 0, 0);
}

#endif
