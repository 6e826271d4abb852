// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The headers of a packet that leaves: its options and addresses, and their sums.

#ifndef WIRE_HEADERS_H
#define WIRE_HEADERS_H

#include "wire_segment.h"

#define OPTIONS_MAX 40 // bytes of TCP options

// The headers of a packet that leaves are made as words: a processor waits where bytes
// that were written one by one are read together. At first the IP header, from the word
// before the addresses on, then TCP's. IPv4 begins later, so that TCP's are in one place. What
// else is on the stack is in other eight bytes: the verifier takes these for one.
#define V6_AT 1
#define V4_AT 7
#define TCP_AT 10
#define HEADER_WORDS 26

// alter sets a word, and adds what that does to the sum of all.
static __always_inline void alter(__be32 *word, __be32 to, __u64 *diff)
{
	*diff += (__u64)to + (__u32)~*word;
	*word = to;
}

static __always_inline __u32 fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

// A walk over the options of one segment.
struct walk {
	__be32 h[HEADER_WORDS];
	__u32 n;  // bytes of the TCP header
	__u32 at; // the next option, from there
	__u32 ack_add, tsval_add, tsecr_add;
	__u32 most;    // edges beyond it become it, when bounded
	__u8 bounded;
	__u8 echoless; // the echo is of nobody's clock: it becomes 0
	__u8 signs;    // there is a signature of what is to be changed
};

// The TCP header has 64 bytes at most: the mask satisfies the verifier.
#define AT(i) (TCP_AT * 4 + ((i) & 63))

static __always_inline __u8 at8(const struct walk *w, __u32 i) { return ((__u8 *)w->h)[AT(i)]; }

static __always_inline __u32 at32(const struct walk *w, __u32 i)
{
	return (__u32)at8(w, i) << 24 | (__u32)at8(w, i + 1) << 16 | (__u32)at8(w, i + 2) << 8 | at8(w, i + 3);
}

static __always_inline void set32(struct walk *w, __u32 i, __u32 v)
{
	__u8 *o = (__u8 *)w->h;

	o[AT(i)] = v >> 24;
	o[AT(i + 1)] = v >> 16;
	o[AT(i + 2)] = v >> 8;
	o[AT(i + 3)] = v;
}

static __always_inline void add32(struct walk *w, __u32 i, __u32 add) { set32(w, i, at32(w, i) + add); }

static __always_inline __u16 fold(__u64 sum)
{
	__u32 n = fold32(sum);

	n = (n & 0xffff) + (n >> 16);
	return (n & 0xffff) + (n >> 16);
}

// readdress4 gives a packet other addresses and, as a router does, a hop less. ip is its TTL,
// protocol and checksum, and the addresses. It returns what they do to a sum.
static __always_inline __u32 readdress4(__be32 *ip, const struct key *to)
{
	__u32 first = bpf_ntohl(ip[0]) - 0x01000000;
	__u64 diff = 0;

	alter(ip + 1, to->saddr[3], &diff);
	alter(ip + 2, to->daddr[3], &diff);
	// RFC 1624. The word of the TTL becomes less by 0x100; a sum of swapped bytes is the
	// swapped sum.
	ip[0] = bpf_htonl((first & 0xffff0000) | (__u16)~fold((__u16)~first + 0xfeffu + bpf_ntohs(fold(diff))));
	return fold32(diff);
}

// readdress6 is the same for IPv6: the word that ends with the hop limit, and the addresses.
static __noinline __u32 readdress6(__be32 *ip, const struct key *to)
{
	__u64 diff = 0;

	ip[0] = bpf_htonl(bpf_ntohl(ip[0]) - 1);
	for (int i = 0; i < 4; i++)
		alter(ip + 1 + i, to->saddr[i], &diff);
	for (int i = 0; i < 4; i++)
		alter(ip + 5 + i, to->daddr[i], &diff);
	return fold32(diff);
}

// option translates the one at w->at. 1 ends the walk.
static long option(__u32 index, void *ctx)
{
	struct walk *w = ctx;
	__u32 at = w->at, kind, len;

	if (at >= w->n)
		return 1;
	kind = at8(w, at);
	if (kind == 0)
		return 1;
	if (kind == 1) {
		w->at = at + 1;
		return 0;
	}
	len = at8(w, at + 1);
	if (len < 2 || at + len > w->n)
		return 1;
	if (kind == 8 && len == 10) {
		add32(w, at + 2, w->tsval_add);
		if (w->echoless)
			set32(w, at + 6, 0);
		else
			add32(w, at + 6, w->tsecr_add);
	} else if (kind == 5) {
		// At most four blocks fit.
		for (__u32 edge = 2; edge <= 30; edge += 4) {
			if (edge + 4 > len)
				break;
			add32(w, at + edge, w->ack_add);
			if (w->bounded && before(w->most, at32(w, at + edge)))
				set32(w, at + edge, w->most);
		}
	} else if (kind == 19 || kind == 29) { // MD5, RFC 2385; TCP-AO, RFC 5925
		w->signs = 1;
	}
	w->at = at + len;
	return 0;
}

// options translates all of them, and returns what that does to the sum of all words.
static __noinline __u32 options(struct walk *w)
{
	__be32 *o = w->h + TCP_AT + 5;
	__u32 diff = bpf_csum_diff(o, OPTIONS_MAX, NULL, 0, 0);

	// No option is shorter than a byte.
	bpf_loop(OPTIONS_MAX, option, w, 0);
	return bpf_csum_diff(NULL, 0, o, OPTIONS_MAX, diff);
}

// is_signed says whether a segment has a signature of what would be changed.
static __noinline int is_signed(struct __sk_buff *skb, const struct segment *s)
{
	struct walk w = { .at = sizeof(struct tcphdr) };
	__u32 n;

	if (!s)
		return 0;
	n = s->hdrlen;
	asm volatile("%0 &= 63" : "+r"(n));
	if (n <= sizeof(struct tcphdr) || bpf_skb_load_bytes(skb, s->l4, w.h + TCP_AT, n))
		return 0;
	w.n = n;
	bpf_loop(OPTIONS_MAX, option, &w, 0);
	return w.signs;
}

#endif
