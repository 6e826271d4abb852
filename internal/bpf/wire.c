//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Packet-level splicing. Two TCP connections, A to B and B to C, have become a
// pair of entries in the flows map, one a direction, each under the tuple of
// the packets that arrive at B. wire_ingress runs on every interface that such
// packets come in by. It rewrites them so that A and C talk to each other, each
// believing that it talks to B.
//
// While B's sockets still carry the pair, the entries only watch (PASS). When
// user space has nothing left to move, it arms both entries with the numbers of
// the sockets. The packet that finds the pair at rest by these numbers, an
// acknowledgement or new data that carries one, switches both over (SPLICED):
// nothing is kept from the sockets before, and nothing is lost. wire_control
// arms and disarms, under the same locks as the packets take.

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif

#define TCX_NEXT -1
#define TCX_PASS 0
#define TCX_DROP 2

#define FLOWS_MAX 262144 // default size; the loader may change it
#define OPTIONS_MAX 40	 // bytes of TCP options
#define ROUND_MARK 0x5b11ced1 // a segment that waits for the outcome of another's switch

enum state {
	PASS,	 // the sockets carry the pair; take note
	SPLICED, // rewrite and redirect
};

enum verdict {
	ENDED_FIN = 1, // both FINs were acknowledged
	ENDED_RST = 2,
};

// A tuple as the packet carries it, in network byte order. IPv4 addresses are
// mapped into IPv6.
struct key {
	__u32 saddr[4];
	__u32 daddr[4];
	__u16 sport;
	__u16 dport;
};

// How packets of one direction are rewritten. Sequence numbers and timestamps
// in host byte order, to be added modulo 2^32.
struct rewrite {
	struct key to; // the new tuple
	__u32 ifindex;	    // leaves by this interface
	__u32 seq_add;
	__u32 ack_add;	// SACK edges too
	__u32 tsval_add;
	__u32 tsecr_add;
	__u8 window_in;	 // shift that the sender's window has
	__u8 window_out; // shift that the receiver believes it has
	__u8 pad[2];
};

// Every layout begins like this, up to last_seen: it tells a later version when
// a flow of this one is over.
struct flow {
	struct bpf_spin_lock lock;
	__u32 state;
	__u32 verdict;	   // enum verdict
	__u32 pad0;
	__u64 last_seen;   // ns, CLOCK_MONOTONIC; since the switch
	struct rewrite rewrite;

	// What the direction's sender was seen to do, in its own numbers.
	__u32 passed;	  // end of the data that went up to the socket
	__u32 acked;	  // the highest acknowledgement
	__u32 window;	  // the last window, not shifted
	__u32 tsval;	  // the last timestamp
	__u32 fin_end;	  // number after the FIN, when fin is set
	__u32 peer_fin;	  // number after the other side's FIN, as this sender acknowledges it
	__u8 seen;	  // acked, window and tsval are valid
	__u8 fin;	  // this sender sent a FIN
	__u8 peer_finned; // peer_fin is valid
	__u8 fin_acked;	  // this sender acknowledged the other side's FIN
	__u32 end;	  // the highest number after data seen since the switch
	__u32 arm_received; // what the socket had received when the entry was armed
	__u32 arm_sent;	  // what it had sent
	__u8 armed;
	__u8 switching;	  // somebody is about to switch the pair, or to find that it can't be
	__u8 barred;	  // bar is valid
	__u8 bar_met;	  // something was dropped for it
	__u32 bar;	  // data and FINs beyond that number are dropped, after the switch

	// Since the switch.
	__u64 packets;
	__u64 bytes;	   // payload seen, retransmissions included
	__u64 acked_bytes; // of the other direction, acknowledged by this sender
	__u64 retransmits; // segments that started before end
	__u64 last_moved;  // ns: data or a FIN, or an acknowledgement of some
	__u64 rounds;	   // of segments that came while the pair was being switched
	__u64 errors;	   // segments that could not be rewritten: dropped
	__u64 held_back;   // segments beyond the bar: dropped
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FLOWS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key);
	__type(value, struct flow);
} flows SEC(".maps");

// Keys of entries whose sender has acknowledged a FIN or sent a RST.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} ended SEC(".maps");

// A packet of a flow.
struct segment {
	struct key key;
	__u32 l3;     // offset of the IP header
	__u32 l4;     // offset of the TCP header
	__u32 len;    // payload bytes
	__u32 seq;    // host order
	__u32 ack;
	__u32 window; // as in the packet, host order
	__u32 hdrlen; // of the TCP header with options
	__u8 v6;
	__u8 fin, syn, rst, acks;
};

static __always_inline int before(__u32 a, __u32 b) { return (__s32)(a - b) < 0; }

// parse fills in s for a TCP segment; anything else is not ours.
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
		if (ip->ihl < 5 || ip->frag_off & bpf_htons(0x3fff)) // MF or an offset
			return -1;
		s->l4 = ETH_HLEN + ip->ihl * 4;
		total = bpf_ntohs(ip->tot_len);
		if (total)
			total -= ip->ihl * 4;
		s->key.saddr[2] = s->key.daddr[2] = bpf_htonl(0xffff);
		s->key.saddr[3] = ip->saddr;
		s->key.daddr[3] = ip->daddr;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + ETH_HLEN;

		// An extension header makes nexthdr something else.
		if ((void *)(ip + 1) > end || ip->nexthdr != IPPROTO_TCP)
			return -1;
		s->v6 = 1;
		s->l4 = ETH_HLEN + sizeof(*ip);
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

static __always_inline __u32 get32(const __u8 *p)
{
	return (__u32)p[0] << 24 | (__u32)p[1] << 16 | (__u32)p[2] << 8 | p[3];
}

static __always_inline void put32(__u8 *p, __u32 v)
{
	p[0] = v >> 24;
	p[1] = v >> 16;
	p[2] = v >> 8;
	p[3] = v;
}

// The layout that all current systems use for a segment without SACK.
static __always_inline int plain_timestamps(const __u8 *o)
{
	return o[0] == 1 && o[1] == 1 && o[2] == 8 && o[3] == 10;
}

// timestamp returns the sender's clock, or instead if there is none in the
// place where all current systems put it.
static __always_inline __u32 timestamp(struct __sk_buff *skb, const struct segment *s, __u32 instead)
{
	__u8 o[12];

	if (s->hdrlen < sizeof(struct tcphdr) + sizeof(o))
		return instead;
	if (bpf_skb_load_bytes(skb, s->l4 + sizeof(struct tcphdr), o, sizeof(o)))
		return instead;
	return plain_timestamps(o) ? get32(o + 4) : instead;
}

#define AT(i) ((i) & 63) // the buffer has 64 bytes: the mask satisfies the verifier

static __always_inline void add32(__u8 *o, __u32 i, __u32 add)
{
	__u32 v = (__u32)o[AT(i)] << 24 | (__u32)o[AT(i + 1)] << 16 | (__u32)o[AT(i + 2)] << 8 | o[AT(i + 3)];

	v += add;
	o[AT(i)] = v >> 24;
	o[AT(i + 1)] = v >> 16;
	o[AT(i + 2)] = v >> 8;
	o[AT(i + 3)] = v;
}

// A walk over the options of one segment.
struct walk {
	__u8 o[64];
	__u32 n;  // bytes of o that are options
	__u32 at; // the next one
	__u32 ack_add, tsval_add, tsecr_add;
};

// option translates the one at w->at. 1 ends the walk.
static long option(__u32 index, void *ctx)
{
	struct walk *w = ctx;
	__u32 at = w->at, kind, len;

	if (at >= w->n)
		return 1;
	kind = w->o[AT(at)];
	if (kind == 0)
		return 1;
	if (kind == 1) {
		w->at = at + 1;
		return 0;
	}
	len = w->o[AT(at + 1)];
	if (len < 2 || at + len > w->n)
		return 1;
	if (kind == 8 && len == 10) {
		add32(w->o, at + 2, w->tsval_add);
		add32(w->o, at + 6, w->tsecr_add);
	} else if (kind == 5) {
		// At most four blocks fit.
		for (__u32 edge = 2; edge <= 30; edge += 4)
			if (edge + 4 <= len)
				add32(w->o, at + edge, w->ack_add);
	}
	w->at = at + len;
	return 0;
}

static __always_inline void report(const struct key *key)
{
	struct key *k = bpf_ringbuf_reserve(&ended, sizeof(*k), 0);

	if (!k)
		return; // user space looks at every flow from time to time anyway
	__builtin_memcpy(k, key, sizeof(*k));
	bpf_ringbuf_submit(k, 0);
}

// at_rest: user space has moved all that the socket has received, which is all
// that was passed to it; there was no FIN; and the peer has acknowledged all
// that it was sent.
static __always_inline int at_rest(const struct flow *f)
{
	return f->armed && f->seen && !f->fin && f->passed == f->arm_received && f->acked == f->arm_sent;
}

// claim says whether the caller is to try to switch the pair. f is locked.
static __always_inline int claim(struct flow *f)
{
	if (f->state == SPLICED || f->switching || !at_rest(f))
		return 0;
	f->switching = 1;
	return 1;
}

static __always_inline void begin(struct flow *f, __u64 now)
{
	f->end = f->passed;
	f->last_seen = now;
	f->state = SPLICED;
}

// try_switch ends a claim. Two of them can run at a time, one from each side:
// each may find that the other has switched its own entry already.
static __always_inline int try_switch(struct flow *f, struct flow *peer, __u64 now)
{
	int done = 0;

	bpf_spin_lock(&peer->lock);
	if (peer->state == SPLICED) {
		done = 1;
	} else if (at_rest(peer)) {
		begin(peer, now);
		done = 1;
	}
	bpf_spin_unlock(&peer->lock);

	bpf_spin_lock(&f->lock);
	f->switching = 0;
	if (f->state == SPLICED)
		done = 1;
	else if (done)
		begin(f, now);
	bpf_spin_unlock(&f->lock);
	return done;
}

static __always_inline struct flow *opposite(const struct flow *f)
{
	const struct rewrite *r = &f->rewrite;
	struct key back;

	// The peer's entry is under the tuple that answers come with.
	__builtin_memcpy(back.saddr, r->to.daddr, 16);
	__builtin_memcpy(back.daddr, r->to.saddr, 16);
	back.sport = r->to.dport;
	back.dport = r->to.sport;
	return bpf_map_lookup_elem(&flows, &back);
}

enum course { UP, ROUND, ACROSS };

// watch takes note of a segment of a pair that the sockets carry, and says
// which course it takes. It may switch the pair.
static __always_inline enum course watch(struct flow *f, const struct segment *s, __u32 tsval, __u64 now)
{
	__u32 end = s->seq + s->len + s->fin + s->syn;
	int data = end != s->seq;
	int claimed = 0, fresh;
	enum course course = UP;
	struct flow *peer;

	bpf_spin_lock(&f->lock);
	if (f->state == SPLICED) {
		bpf_spin_unlock(&f->lock);
		return ACROSS;
	}
	if (s->acks && (!f->seen || !before(s->ack, f->acked))) {
		f->acked = s->ack;
		f->window = s->window;
	}
	// A segment that starts in what was passed is a retransmission: the
	// socket may lack it.
	fresh = data && !before(s->seq, f->passed);
	if (s->acks && !s->rst && (fresh || !data))
		claimed = claim(f);
	bpf_spin_unlock(&f->lock);

	if (claimed) {
		peer = opposite(f);
		if (peer && try_switch(f, peer, now)) {
			report(&s->key);
			// The sockets stay for a while: an acknowledgement is theirs.
			return data ? ACROSS : UP;
		}
		if (!peer) {
			bpf_spin_lock(&f->lock);
			f->switching = 0;
			bpf_spin_unlock(&f->lock);
		}
	}

	bpf_spin_lock(&f->lock);
	if (f->state == SPLICED) {
		// By the other side, meanwhile.
		course = data ? ACROSS : UP;
	} else if (fresh && f->switching) {
		course = ROUND; // another CPU is at it
	} else {
		if (data && before(f->passed, end))
			f->passed = end;
		if (s->fin)
			f->fin = 1;
		f->tsval = tsval;
	}
	f->seen = 1;
	bpf_spin_unlock(&f->lock);
	return course;
}

// account counts a segment of a spliced flow, and tells when the flow is over.
// It says whether the segment may go on: beyond the bar it may not, but the
// acknowledgement that it carries counts.
static __always_inline int account(struct flow *f, const struct segment *s, __u64 now)
{
	const struct rewrite *r = &f->rewrite;
	__u32 end = s->seq + s->len + s->fin;
	int barred = end != s->seq && *(volatile __u8 *)&f->barred && before(f->bar, end);
	int fin = s->fin && !barred;
	struct flow *peer;
	int news = 0;

	f->last_seen = now;
	f->window = s->window;
	if (barred) {
		__sync_fetch_and_add(&f->held_back, 1);
		if (!f->bar_met) {
			f->bar_met = 1;
			news = 1;
		}
	} else {
		__sync_fetch_and_add(&f->packets, 1);
		__sync_fetch_and_add(&f->bytes, s->len);
	}
	if (end != s->seq && !barred) {
		if (before(s->seq, f->end))
			__sync_fetch_and_add(&f->retransmits, 1);
		if (before(f->end, end)) {
			f->end = end;
			f->last_moved = now;
		}
	}
	// Segments of one sender can come by on several CPUs at a time. Whoever
	// loses four times in a row was overtaken by higher numbers, or leaves
	// its own to the next segment.
	for (int i = 0; s->acks && i < 4; i++) {
		__u32 was = f->acked;

		if (!before(was, s->ack))
			break;
		if (__sync_val_compare_and_swap(&f->acked, was, s->ack) == was) {
			__sync_fetch_and_add(&f->acked_bytes, s->ack - was);
			f->last_moved = now;
			break;
		}
	}
	if (s->acks && f->peer_finned && !f->fin_acked && !before(s->ack, f->peer_fin)) {
		f->fin_acked = 1;
		news = 1;
	}
	if (!fin && !s->rst && !news)
		return !barred;

	peer = opposite(f);
	if (!peer)
		return !barred;
	if (fin && !f->fin) {
		f->fin_end = end;
		f->fin = 1;
		f->last_moved = now;
		peer->peer_fin = end + r->seq_add;
		peer->peer_finned = 1;
	}
	// A RST from before what its receiver has acknowledged is not believed.
	if (s->rst && !f->verdict && !before(s->seq + r->seq_add, peer->acked)) {
		f->verdict = ENDED_RST;
		news = 1;
	} else if (f->fin_acked && peer->fin_acked && !f->verdict && !peer->verdict) {
		f->verdict = ENDED_FIN;
	}
	if (news)
		report(&s->key);
	return !barred;
}

// rewrite changes the segment's headers and sends it on its way.
static __always_inline int rewrite(struct __sk_buff *skb, struct flow *f, const struct segment *s)
{
	const struct rewrite *r = &f->rewrite;
	__u8 was[64] = {}, is[64] = {}; // the TCP header
	__u32 n = s->hdrlen;
	__u64 window;
	__s64 diff;

	asm volatile("%0 &= 63" : "+r"(n)); // at most 60: the verifier has lost that
	if (n < sizeof(struct tcphdr))
		return TCX_DROP;
	if (bpf_skb_load_bytes(skb, s->l4, was, n))
		return TCX_DROP;
	__builtin_memcpy(is, was, sizeof(is));

	__builtin_memcpy(is, &r->to.sport, 2);
	__builtin_memcpy(is + 2, &r->to.dport, 2);
	put32(is + 4, s->seq + r->seq_add);
	if (s->acks)
		put32(is + 8, s->ack + r->ack_add);
	window = ((__u64)s->window << (r->window_in & 15)) >> (r->window_out & 15);
	if (window > 65535)
		window = 65535;
	// Urgent bytes keep their place in the stream, as when it is relayed.
	is[13] &= ~0x20;
	is[18] = is[19] = 0;
	is[14] = window >> 8;
	is[15] = window;
	if (n > sizeof(struct tcphdr)) {
		__u8 *o = is + sizeof(struct tcphdr);
		__u32 tsecr_add = s->acks ? r->tsecr_add : 0;

		// For the socket that may take the pair back.
		if (n >= 32 && plain_timestamps(o))
			f->tsval = get32(o + 4);
		if (n == 32 && plain_timestamps(o)) {
			put32(o + 4, get32(o + 4) + r->tsval_add);
			put32(o + 8, get32(o + 8) + tsecr_add);
		} else {
			struct walk w = {
				.n = n - sizeof(struct tcphdr),
				.ack_add = r->ack_add,
				.tsval_add = r->tsval_add,
				.tsecr_add = tsecr_add,
			};

			__builtin_memcpy(w.o, o, OPTIONS_MAX);
			// No option is shorter than a byte.
			bpf_loop(OPTIONS_MAX, option, &w, 0);
			__builtin_memcpy(o, w.o, OPTIONS_MAX);
		}
	}

	// The checksum field is the same in both and so drops out. The lengths
	// are constants: the bytes after n are 0 in both.
	diff = bpf_csum_diff((__be32 *)was, 64, (__be32 *)is, 64, 0);
	if (diff < 0)
		return TCX_DROP;
	if (bpf_skb_store_bytes(skb, s->l4, is, n, BPF_F_INVALIDATE_HASH))
		return TCX_DROP;
	if (bpf_l4_csum_replace(skb, s->l4 + offsetof(struct tcphdr, check), 0, diff, 0))
		return TCX_DROP;

	if (s->v6) {
		diff = bpf_csum_diff((__be32 *)s->key.saddr, 32, (__be32 *)r->to.saddr, 32, 0);
		if (bpf_skb_store_bytes(skb, s->l3 + offsetof(struct ipv6hdr, saddr), r->to.saddr, 32, 0))
			return TCX_DROP;
	} else {
		__u32 old[2] = { s->key.saddr[3], s->key.daddr[3] };
		__u32 new[2] = { r->to.saddr[3], r->to.daddr[3] };

		diff = bpf_csum_diff(old, 8, new, 8, 0);
		if (bpf_skb_store_bytes(skb, s->l3 + offsetof(struct iphdr, saddr), new, 8, 0))
			return TCX_DROP;
		if (bpf_l3_csum_replace(skb, s->l3 + offsetof(struct iphdr, check), 0, diff, 0))
			return TCX_DROP;
	}
	if (bpf_l4_csum_replace(skb, s->l4 + offsetof(struct tcphdr, check), 0, diff, BPF_F_PSEUDO_HDR))
		return TCX_DROP;

	// By way of lo too: there it brings a route along. Without one the input
	// path would take B's own addresses for martians as soon as the receiving
	// socket has forgotten its route.
	return bpf_redirect_neigh(r->ifindex, NULL, 0, 0);
}

SEC("tc")
int wire_ingress(struct __sk_buff *skb)
{
	struct segment s = {};
	struct flow *f;
	__u64 now;

	if (parse(skb, &s))
		return TCX_NEXT;
	f = bpf_map_lookup_elem(&flows, &s.key);
	if (!f) {
		if (skb->mark == ROUND_MARK) // its entry was taken out
			skb->mark = 0;
		return TCX_NEXT;
	}
	now = bpf_ktime_get_ns();
	if (*(volatile __u32 *)&f->state != SPLICED) {
		switch (watch(f, &s, timestamp(skb, &s, f->tsval), now)) {
		case UP:
			if (skb->mark == ROUND_MARK)
				skb->mark = 0;
			return TCX_NEXT;
		case ROUND:
			skb->mark = ROUND_MARK;
			__sync_fetch_and_add(&f->rounds, 1);
			return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
		case ACROSS:
			break;
		}
	}
	// A new connection with the addresses of one that is over.
	if (f->verdict && s.syn)
		return TCX_NEXT;
	if (skb->mark == ROUND_MARK)
		skb->mark = 0;
	if (!account(f, &s, now))
		return TCX_DROP;
	{
		int verdict = rewrite(skb, f, &s);

		if (verdict == TCX_DROP)
			__sync_fetch_and_add(&f->errors, 1);
		return verdict;
	}
}

// Commands of user space, which arrive as the packet of a test run.
enum op {
	OP_RELEASE = 1, // EALREADY: the pair was switched
	OP_ARM = 2,	// EALREADY: the pair was switched, maybe just now
	OP_BAR = 3,	// after the switch: bounds what goes across
};

// What OP_BAR does to a side.
enum bar {
	BAR_NONE,
	BAR_AT,	  // side.received, in the numbers of the side's peer
	BAR_HERE, // at the end of what has gone across
};

struct command {
	__u32 op;
	struct side {
		struct key key;
		__u32 received; // what the socket has received: rcv_nxt
		__u32 sent;	// what it has sent: write_seq; of OP_BAR: enum bar
		struct rewrite rewrite;
	} side[2];
};

static __always_inline int disarm(struct flow *f)
{
	int err = 0;

	bpf_spin_lock(&f->lock);
	if (f->state == SPLICED)
		err = 114;
	else if (f->switching)
		err = 11;
	else
		f->armed = 0;
	bpf_spin_unlock(&f->lock);
	return err;
}

static __always_inline int arm(struct flow *f, const struct side *s)
{
	int err = 0;

	bpf_spin_lock(&f->lock);
	if (before(f->passed, s->received))
		f->passed = s->received;
	if (f->passed != s->received) {
		err = 11; // more is on its way to the socket
	} else {
		f->arm_received = s->received;
		f->arm_sent = s->sent;
		// Not memcpy: the verifier allows no call in here.
		f->rewrite = s->rewrite;
		f->armed = 1;
	}
	bpf_spin_unlock(&f->lock);
	return err;
}

// set_bar does not reach a packet that another CPU is at: it has gone across
// when that CPU is done with it.
static __always_inline void set_bar(struct flow *f, const struct side *s)
{
	bpf_spin_lock(&f->lock);
	f->bar = s->sent == BAR_HERE ? f->end : s->received;
	f->bar_met = 0;
	f->barred = s->sent != BAR_NONE;
	bpf_spin_unlock(&f->lock);
}

SEC("tc")
int wire_control(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct command *c = data;
	struct flow *a, *b;
	struct key key;
	__u64 now = bpf_ktime_get_ns();
	int err, claimed;

	if ((void *)(c + 1) > end)
		return 22; // EINVAL
	key = c->side[0].key;
	a = bpf_map_lookup_elem(&flows, &key);
	key = c->side[1].key;
	b = bpf_map_lookup_elem(&flows, &key);
	if (!a || !b)
		return 2; // ENOENT
	switch (c->op) {
	case OP_RELEASE:
		err = disarm(a);
		return err ? err : disarm(b);
	case OP_ARM:
		// Old numbers of one must not meet new ones of the other.
		err = disarm(a);
		if (!err)
			err = disarm(b);
		if (!err)
			err = arm(b, &c->side[1]);
		if (!err)
			err = arm(a, &c->side[0]);
		if (err)
			return err;
		bpf_spin_lock(&a->lock);
		claimed = claim(a);
		bpf_spin_unlock(&a->lock);
		return claimed && try_switch(a, b, now) ? 114 : 0;
	case OP_BAR:
		set_bar(a, &c->side[0]);
		set_bar(b, &c->side[1]);
		return 0;
	}
	return 22;
}

// Makes the type known to BTF, and so to Go.
const struct command *command_type __attribute__((unused));

char _license[] SEC("license") = "Dual BSD/GPL";
