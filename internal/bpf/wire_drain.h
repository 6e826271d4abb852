// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What becomes of a segment while the sockets still have something to deliver: it goes across, or
// to the socket, or across and to the socket.

#ifndef WIRE_DRAIN_H
#define WIRE_DRAIN_H

#include "wire_account.h"
#include "wire_headers.h"

#define SHOW_MARK 0x5b11ced1 // a copy of a segment, of which the socket is shown the acknowledgement

enum course {
	ACROSS,
	BOTH, // across; and the socket is shown its acknowledgement
	SHOW, // only that
	UP,   // all of it to the socket
};

// What has sent so much since the cut sends nothing from before it any more. More can go across than numbers can be compared
// with, as long as the process that is to settle the pair does not run.
#define FAR (1U << 30)

// credible says whether a segment can be of the flow. Its place can be one that the socket has promised, beyond
// what the receiver has, and what it acknowledges the socket's. What a socket is shown is made to fit it: it
// would believe a stranger's acknowledgement of all, and not send again what was lost.
static __always_inline int credible(const struct flow *f, const struct segment *s, struct flow **peer)
{
	return near(s->seq, f->end - NEAR, f->end + NEAR) && acknowledges(f, s, peer);
}

// drain says which course a segment takes while the sockets still have something
// to deliver. What is not credible is left to the receiver.
static __always_inline enum course drain(struct flow *f, const struct segment *s, int credible)
{
	__u32 end = s->seq + s->len + s->fin + s->syn;
	__u32 cut_ack = *(volatile __u32 *)&f->cut_ack;
	int across, show;

	// The socket ends the pair.
	if (s->rst || s->syn)
		return UP;
	if (!credible)
		return ACROSS;
	// The socket has it, and says so again. What goes on behind the cut goes across
	// as it is: its receiver knows what is before the cut, or takes it from here.
	if (end != s->seq && !before(f->cut, end) && *(volatile __u64 *)&f->bytes < FAR)
		return UP;
	show = owes(f);
	across = end != s->seq || !show || !before(s->ack, cut_ack);
	if (show) {
		__u32 to = before(s->ack, cut_ack) ? s->ack : cut_ack;

		if (raise(&f->shown, to) && to == cut_ack)
			report(&s->key); // this sender has all that it gets from the socket
	}
	return !across ? SHOW : show ? BOTH : ACROSS;
}

// sent is the number after all that the socket has sent, by which it judges
// acknowledgements: one of more it ignores, and all that comes with it. It need not
// have sent yet what it has to deliver.
static __always_inline __u32 sent(struct __sk_buff *skb, const struct flow *f, const struct segment *s)
{
	struct place p = { .sent = *(volatile __u32 *)&f->cut_ack };

	(void)socket_at(skb, s, &p);
	return p.sent;
}

// show passes up the acknowledgement of a segment, without its data and as the socket
// would have got it, had there been no switch:
//
//   - its number is not lower than what the socket has got, or it would be old;
//   - it acknowledges what the socket has sent at most. A receiver makes one SACK block
//     of the socket's bytes and those that went across behind them, and the socket
//     would believe nothing of it;
//   - its timestamps echo nothing. As soon as the other direction has moved on, the
//     socket's own segments acknowledge less than their receiver has been told, and it does
//     not take note of their clock. What it echoes then is that of an earlier
//     one: the socket would take its retransmission for needless and stop, and the time
//     since then for the round trip's.
static __noinline int show(struct __sk_buff *skb, const struct flow *f, const struct segment *s)
{
	__u32 cut = f->cut, most = sent(skb, f, s);
	__u32 n = s->hdrlen;
	struct walk w = {
		.n = n,
		.at = sizeof(struct tcphdr),
		.most = most,
		.bounded = 1,
		.echoless = 1,
	};
	__u8 *h = (__u8 *)(w.h + TCP_AT);
	__u32 pseudo[10] = {};
	__s64 sum;

	asm volatile("%0 &= 63" : "+r"(n));
	if (n < sizeof(struct tcphdr))
		return TCX_DROP;
	if (bpf_skb_load_bytes(skb, s->l4, h, n))
		return TCX_DROP;
	if (s->len && bpf_skb_change_tail(skb, s->l4 + n, 0))
		return TCX_DROP;
	put32(h + 4, before(cut, s->seq) ? cut : s->seq);
	put32(h + 8, before(most, s->ack) ? most : s->ack);
	options(&w);
	h[13] = 0x10 | (h[13] & 0xc0); // ACK; ECE and CWR as they are
	h[16] = h[17] = h[18] = h[19] = 0;

	__builtin_memcpy(pseudo, s->key.saddr, 32); // of IPv4 mapped into IPv6: 0xffff counts for nothing
	pseudo[8] = bpf_htonl(n);
	pseudo[9] = bpf_htonl(IPPROTO_TCP);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)h, 64, 0);
	if (sum < 0)
		return TCX_DROP;
	sum = bpf_csum_diff(NULL, 0, pseudo, 40, sum);
	if (sum < 0)
		return TCX_DROP;
	sum = (__u16)~fold(sum);
	h[16] = sum; // in the byte order of memory
	h[17] = sum >> 8;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	h[16] = sum >> 8;
	h[17] = sum;
#endif
	if (bpf_skb_store_bytes(skb, s->l4, h, n, BPF_F_RECOMPUTE_CSUM))
		return TCX_DROP;
	if (s->v6) {
		__be16 len = bpf_htons(s->jumbo + n);
		__u8 padding[] = { PADDING, 4, 0, 0, 0, 0 };

		// It is short now.
		if (s->jumbo && bpf_skb_store_bytes(skb, s->l4 - sizeof(padding), padding, sizeof(padding), BPF_F_RECOMPUTE_CSUM))
			return TCX_DROP;
		if (bpf_skb_store_bytes(skb, s->l3 + offsetof(struct ipv6hdr, payload_len), &len, 2, BPF_F_RECOMPUTE_CSUM))
			return TCX_DROP;
	} else {
		__be16 len = bpf_htons(s->l4 - s->l3 + n), was;

		if (bpf_skb_load_bytes(skb, s->l3 + offsetof(struct iphdr, tot_len), &was, 2))
			return TCX_DROP;
		if (bpf_l3_csum_replace(skb, s->l3 + offsetof(struct iphdr, check), was, len, 2))
			return TCX_DROP;
		if (bpf_skb_store_bytes(skb, s->l3 + offsetof(struct iphdr, tot_len), &len, 2, 0))
			return TCX_DROP;
	}
	return TCX_NEXT;
}

// expected passes up a RST with a number that means to the socket what its own means to the receiver
// of what went across since the cut, which the socket lacks: it would pass over one beyond the
// window that it has announced in silence. A RST that is believed ends it. One that may be
// true, but not at that number, it answers with a challenge: nobody else asks its sender.
static __noinline int expected(struct __sk_buff *skb, const struct flow *f, const struct segment *s)
{
	struct place p = { .received = f->cut };
	struct flow *peer = opposite(f);
	__be32 was, is;

	if (!s || !peer)
		return TCX_NEXT;
	(void)socket_at(skb, s, &p);
	if (resets(f, peer, s))
		is = bpf_htonl(p.received);
	else if (may_reset(f, peer, s) && s->seq != p.received)
		is = bpf_htonl(p.received + 1);
	else
		return TCX_NEXT;
	was = bpf_htonl(s->seq);
	if (was == is)
		return TCX_NEXT;
	if (bpf_l4_csum_replace(skb, s->l4 + offsetof(struct tcphdr, check), was, is, 4) ||
	    bpf_skb_store_bytes(skb, s->l4 + offsetof(struct tcphdr, seq), &is, 4, 0))
		return TCX_DROP;
	return TCX_NEXT;
}

// lower passes up a segment with data. The socket would not take note of it if it
// acknowledged what the socket never sent.
static __always_inline int lower(struct __sk_buff *skb, const struct flow *f, const struct segment *s)
{
	__u32 most;
	__be32 was, is;

	if (s->rst)
		return expected(skb, f, s);
	most = sent(skb, f, s);
	was = bpf_htonl(s->ack);
	is = bpf_htonl(most);
	if (!s->acks || !before(most, s->ack))
		return TCX_NEXT;
	if (bpf_l4_csum_replace(skb, s->l4 + offsetof(struct tcphdr, check), was, is, 4))
		return TCX_DROP;
	if (bpf_skb_store_bytes(skb, s->l4 + offsetof(struct tcphdr, ack_seq), &is, 4, 0))
		return TCX_DROP;
	return TCX_NEXT;
}

#endif
