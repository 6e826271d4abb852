// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What routers say of packets that went across.

#ifndef WIRE_ICMP_H
#define WIRE_ICMP_H

#include "wire_headers.h"

// Of linux/icmp.h and linux/icmpv6.h, which need libc's headers.
#define ICMP_HLEN 8 // of an error: then comes the packet that it is about
#define ICMP_DEST_UNREACH 3
#define ICMPV6_DEST_UNREACH 1
#define ICMPV6_PKT_TOOBIG 2

struct icmphdr {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be32 rest;
};

// What an error about a packet of ours needs to be one about the packet that it
// was made of: the start of the ICMP message, of either version.
struct quote {
	struct icmphdr icmp;
	union {
		struct {
			struct iphdr ip;
			__be16 source, dest;
			__be32 seq;
		} v4;
		struct {
			struct ipv6hdr ip;
			__be16 source, dest;
			__be32 seq;
		} v6;
	};
};

// icmp says of which version an ICMP message is, 4 or 6; 0 if the packet is none.
static __always_inline int icmp(const struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + ETH_HLEN;

		return (void *)(ip + 1) <= end && ip->protocol == IPPROTO_ICMP ? 4 : 0;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + ETH_HLEN;

		return (void *)(ip + 1) <= end && ip->nexthdr == IPPROTO_ICMPV6 ? 6 : 0;
	}
	return 0;
}

// unreachable translates "unreachable" and "too big", which routers say about what
// goes across, for the packet's true sender. Others, and those about what the
// sockets have sent, are left to the stack. The sizes of packets are the same on
// both legs, and so are those that fit.
static __noinline int unreachable(struct __sk_buff *skb, int v6)
{
	__u32 l3 = ETH_HLEN, l4;
	struct quote was = {}, is = {};
	struct key key = {};
	struct flow *f;
	struct rewrite *r;
	__u32 addresses;
	__s64 diff;

	if (v6) {
		l4 = l3 + sizeof(struct ipv6hdr);
		if (bpf_skb_load_bytes(skb, l4, &was, ICMP_HLEN + sizeof(was.v6)))
			return TCX_NEXT;
		if (was.icmp.type != ICMPV6_PKT_TOOBIG && was.icmp.type != ICMPV6_DEST_UNREACH)
			return TCX_NEXT;
		if (was.v6.ip.nexthdr != IPPROTO_TCP)
			return TCX_NEXT;
		__builtin_memcpy(key.saddr, &was.v6.ip.daddr, 16);
		__builtin_memcpy(key.daddr, &was.v6.ip.saddr, 16);
		key.sport = was.v6.dest;
		key.dport = was.v6.source;
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, l3, &ip, sizeof(ip)))
			return TCX_NEXT;
		if (ip.ihl != 5 || ip.frag_off & bpf_htons(0x3fff))
			return TCX_NEXT;
		l4 = l3 + sizeof(ip);
		if (bpf_skb_load_bytes(skb, l4, &was, ICMP_HLEN + sizeof(was.v4)))
			return TCX_NEXT;
		if (was.icmp.type != ICMP_DEST_UNREACH || was.v4.ip.protocol != IPPROTO_TCP || was.v4.ip.ihl != 5)
			return TCX_NEXT;
		key.saddr[2] = key.daddr[2] = bpf_htonl(0xffff);
		key.saddr[3] = was.v4.ip.daddr;
		key.daddr[3] = was.v4.ip.saddr;
		key.sport = was.v4.dest;
		key.dport = was.v4.source;
	}
	// The packet went to the sender of that flow, and was made of one that
	// the flow's receiver had sent.
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f || *(volatile __u32 *)&f->state != SPLICED || foreign(skb))
		return TCX_NEXT;
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return TCX_DROP;
	r = &f->rewrite;
	is = was;
	if (v6) {
		__builtin_memcpy(&is.v6.ip.saddr, r->to.daddr, 16);
		__builtin_memcpy(&is.v6.ip.daddr, r->to.saddr, 16);
		is.v6.source = r->to.dport;
		is.v6.dest = r->to.sport;
		is.v6.seq = bpf_htonl(bpf_ntohl(was.v6.seq) + r->ack_add);
	} else {
		__u32 old[2] = { was.v4.ip.saddr, was.v4.ip.daddr };

		is.v4.ip.saddr = r->to.daddr[3];
		is.v4.ip.daddr = r->to.saddr[3];
		is.v4.source = r->to.dport;
		is.v4.dest = r->to.sport;
		is.v4.seq = bpf_htonl(bpf_ntohl(was.v4.seq) + r->ack_add);
		// The quoted header's own checksum, RFC 1624.
		diff = bpf_csum_diff(old, 8, &is.v4.ip.saddr, 8, (__u16)~was.v4.ip.check);
		if (diff < 0)
			return TCX_DROP;
		is.v4.ip.check = ~fold(diff);
	}
	diff = bpf_csum_diff((__be32 *)&was, sizeof(was), (__be32 *)&is, sizeof(is), 0);
	if (diff < 0)
		return TCX_DROP;
	// The message comes from B: its true sender means nothing on that side.
	if (v6) {
		__be32 ip[9];

		if (bpf_skb_load_bytes(skb, l3 + V6_FIRST, ip, sizeof(ip)) || (bpf_ntohl(ip[0]) & 0xff) <= 1)
			return TCX_DROP;
		addresses = readdress6(ip, &r->to);
		if (bpf_skb_store_bytes(skb, l4, &is, ICMP_HLEN + sizeof(is.v6), 0) ||
		    bpf_skb_store_bytes(skb, l3 + V6_FIRST, ip, sizeof(ip), 0) ||
		    bpf_l4_csum_replace(skb, l4 + offsetof(struct icmphdr, checksum), 0, fold(diff + addresses), BPF_F_PSEUDO_HDR))
			return TCX_DROP;
	} else {
		__be32 ip[3]; // the addresses are no part of the sum

		if (bpf_skb_load_bytes(skb, l3 + V4_FIRST, ip, sizeof(ip)) || bpf_ntohl(ip[0]) >> 24 <= 1)
			return TCX_DROP;
		readdress4(ip, &r->to);
		if (bpf_skb_store_bytes(skb, l4, &is, ICMP_HLEN + sizeof(is.v4), 0) ||
		    bpf_l4_csum_replace(skb, l4 + offsetof(struct icmphdr, checksum), 0, diff, 0) ||
		    bpf_skb_store_bytes(skb, l3 + V4_FIRST, ip, sizeof(ip), 0))
			return TCX_DROP;
	}
	__sync_fetch_and_add(&f->told, 1);
	return bpf_redirect_neigh(r->ifindex, NULL, 0, 0);
}

#endif
