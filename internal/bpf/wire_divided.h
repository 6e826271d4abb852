// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Packets that were divided on their way. The program can't translate the parts, and puts nothing together: only
// the stack does, for a socket. So such a pair stays with its sockets, or gets them back.

#ifndef WIRE_DIVIDED_H
#define WIRE_DIVIDED_H

#include "wire_watch.h"

#define V4_OFFSET 0x1fff // of a part
#define V6_OFFSET 0xfff8

// The header of a part, RFC 8200, 4.5.
struct part {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

// first reads the tuple and the number of the first part of a segment. 0 is that it is none.
static __noinline int first(struct __sk_buff *skb, struct key *key, __u32 *seq)
{
	__u32 l4 = ETH_HLEN;
	struct {
		__be16 source, dest;
		__be32 seq;
	} tcp;

	if (!key || !seq)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, l4, &ip, sizeof(ip)) || ip.frag_off & bpf_htons(V4_OFFSET) || ip.ihl < 5)
			return 0;
		l4 += ip.ihl * 4;
		key->saddr[2] = key->daddr[2] = bpf_htonl(0xffff);
		key->saddr[3] = ip.saddr;
		key->daddr[3] = ip.daddr;
	} else {
		struct {
			struct ipv6hdr ip;
			struct part part;
		} h;

		if (bpf_skb_load_bytes(skb, l4, &h, sizeof(h)) || h.part.next != IPPROTO_TCP || h.part.offset & bpf_htons(V6_OFFSET))
			return 0;
		l4 += sizeof(h);
		__builtin_memcpy(key->saddr, &h.ip.saddr, 16);
		__builtin_memcpy(key->daddr, &h.ip.daddr, 16);
	}
	if (bpf_skb_load_bytes(skb, l4, &tcp, sizeof(tcp)))
		return 0;
	key->sport = tcp.source;
	key->dport = tcp.dest;
	*seq = bpf_ntohl(tcp.seq);
	return 1;
}

// divide takes note that packets of a flow come in parts, or would have to leave so. Nothing new goes across from now on: what
// is behind a part would leave a hole that only the sockets can fill.
static __always_inline void divide(struct flow *f, const struct key *key)
{
	if (f->divided)
		return;
	bpf_spin_lock(&f->lock);
	if (!f->barred || before(f->end, f->bar)) {
		f->bar = f->end;
		f->beyond = 0;
		f->barred = 1;
	}
	f->divided = 1;
	bpf_spin_unlock(&f->lock);
	report(key);
}

// divided is what becomes of a part. Without the first the others come to nothing: they have no ports. Put together
// they would be a segment for which there is no socket, and the stack would reset the connection. Their sender sends it again.
static __noinline int divided(struct __sk_buff *skb)
{
	struct key key = {};
	struct flow *f;
	__u32 seq = 0;

	if (!first(skb, &key, &seq))
		return TCX_NEXT;
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f || foreign(skb))
		return TCX_NEXT;
	switch (*(volatile __u32 *)&f->state) {
	case PASS:
		if (near(seq, f->passed - NEAR, f->passed + NEAR))
			f->unfit = MSGSIZE;
		return TCX_NEXT;
	case SPLICED:
		break;
	default: // the sockets are there yet
		if (near(seq, f->end - NEAR, f->end + NEAR))
			f->divided = 1;
		return TCX_NEXT;
	}
	if (f->over || f->verdict || !near(seq, f->end - NEAR, f->end + NEAR))
		return TCX_NEXT;
	divide(f, &key);
	return TCX_DROP;
}

#endif
