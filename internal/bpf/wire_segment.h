// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// A packet that arrives, read as a segment of TCP.

#ifndef WIRE_SEGMENT_H
#define WIRE_SEGMENT_H

#include "wire_flow.h"

#define VLAN_ID 0x0fff // of a tag; 0 is none: the tag says a priority alone

// The word of the IP header before the addresses: TTL, protocol and checksum; length, next
// header and hop limit.
#define V4_FIRST offsetof(struct iphdr, ttl)
#define V6_FIRST offsetof(struct ipv6hdr, payload_len)

// A packet of a flow.
struct segment {
	struct key key;
	__u32 l3;     // offset of the IP header
	__u32 l4;     // offset of the TCP header
	__u32 len;    // payload bytes
	__u32 seq;    // host order
	__u32 ack;
	__u32 window; // as in the packet, host order
	__u32 tsval;  // of the sender's clock, if stamped
	__be32 first; // that word
	__u32 hdrlen; // of the TCP header with options
	__u8 v6;
	__u8 hops;     // TTL or hop limit
	__u8 fragable; // a router may divide it
	__u8 jumbo;    // bytes of the header that says how long a bundle is
	__u8 fin, syn, rst, acks;
	__u8 stamped;
};

// The header by which Linux says how long a bundle (GRO, GSO) of more than 64 KiB is: a hop-by-hop
// option of RFC 2675. No packet on a link has it.
struct jumbo {
	__u8 next;
	__u8 more;  // eight bytes that follow
	__u8 kind, len;
	__be32 payload;
};

#define JUMBO 0xc2
#define PADDING 1

#ifndef IPPROTO_FRAGMENT // linux/in6.h needs libc's headers
#define IPPROTO_FRAGMENT 44
#endif

#define DIVIDED 1 // what parse says of a part of a packet, which may be that of a segment

// parse fills in s for a TCP segment; anything else, and parts of one, is not ours.
static __always_inline int parse(struct __sk_buff *skb, struct segment *s)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct tcphdr *tcp;
	__u32 total;

	s->l3 = ETH_HLEN;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + ETH_HLEN;

		if ((void *)(ip + 1) > end || ip->protocol != IPPROTO_TCP)
			return -1;
		if (ip->frag_off & bpf_htons(0x3fff)) // MF or an offset
			return DIVIDED;
		if (ip->ihl < 5)
			return -1;
		s->l4 = ETH_HLEN + ip->ihl * 4;
		s->hops = ip->ttl;
		s->fragable = !(ip->frag_off & bpf_htons(0x4000));
		total = bpf_ntohs(ip->tot_len);
		if (total)
			total -= ip->ihl * 4;
		s->key.saddr[2] = s->key.daddr[2] = bpf_htonl(0xffff);
		s->key.saddr[3] = ip->saddr;
		s->key.daddr[3] = ip->daddr;
		s->first = *(__be32 *)((void *)ip + V4_FIRST);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + ETH_HLEN;
		struct jumbo *jumbo = (void *)(ip + 1);

		if ((void *)(ip + 1) > end)
			return -1;
		// Any other extension header makes nexthdr something else.
		if (ip->nexthdr == IPPROTO_HOPOPTS) {
			if ((void *)(jumbo + 1) > end || jumbo->next != IPPROTO_TCP || jumbo->more ||
			    jumbo->kind != JUMBO || jumbo->len != 4 || ip->payload_len)
				return -1;
			s->jumbo = sizeof(*jumbo);
		} else if (ip->nexthdr != IPPROTO_TCP) {
			return ip->nexthdr == IPPROTO_FRAGMENT ? DIVIDED : -1;
		}
		s->v6 = 1;
		s->l4 = ETH_HLEN + sizeof(*ip) + s->jumbo;
		s->hops = ip->hop_limit;
		s->first = *(__be32 *)((void *)ip + V6_FIRST);
		total = bpf_ntohs(ip->payload_len);
		__builtin_memcpy(s->key.saddr, &ip->saddr, 16);
		__builtin_memcpy(s->key.daddr, &ip->daddr, 16);
	} else {
		return -1;
	}
	tcp = data + s->l4;
	if ((void *)(tcp + 1) > end || tcp->doff < 5)
		return -1;
	s->key.sport = tcp->source;
	s->key.dport = tcp->dest;
	s->hdrlen = tcp->doff * 4;
	if (!total) // a GRO packet of more than 64 KiB
		total = skb->len - s->l4;
	if (total < s->hdrlen)
		return -1;
	s->len = total - s->hdrlen;
	s->seq = bpf_ntohl(tcp->seq);
	s->ack = bpf_ntohl(tcp->ack_seq);
	s->window = bpf_ntohs(tcp->window);
	s->fin = tcp->fin;
	s->syn = tcp->syn;
	s->rst = tcp->rst;
	s->acks = tcp->ack;
	return 0;
}

// foreign says that a frame has come for another machine, or to a group, or belongs to a
// VLAN, whose interface is another one: no socket of B takes it from this one.
static __always_inline int foreign(const struct __sk_buff *skb)
{
	return skb->pkt_type != PACKET_HOST || (skb->vlan_present && skb->vlan_tci & VLAN_ID);
}

static __always_inline void put32(__u8 *p, __u32 v)
{
	p[0] = v >> 24;
	p[1] = v >> 16;
	p[2] = v >> 8;
	p[3] = v;
}

// The layout that all current systems use: as a word.
#define PLAIN_TIMESTAMPS bpf_htonl(0x0101080a)

// stamp reads the sender's clock, if it is in the place where all current systems put it.
static __always_inline void stamp(struct __sk_buff *skb, struct segment *s)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	__be32 far[2];
	__be32 *o;
	__u32 at = s->l4;

	if (s->hdrlen < sizeof(struct tcphdr) + 12)
		return;
	asm volatile("%0 &= 127" : "+r"(at)); // at most 74: the verifier has lost that
	o = data + at + sizeof(struct tcphdr);
	if ((void *)(o + 2) > end) {
		if (bpf_skb_load_bytes(skb, s->l4 + sizeof(struct tcphdr), far, sizeof(far)))
			return;
		o = far;
	}
	if (o[0] != PLAIN_TIMESTAMPS)
		return;
	s->tsval = bpf_ntohl(o[1]);
	s->stamped = 1;
}

#endif
