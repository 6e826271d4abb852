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
// that very moment: all that was passed up it has received. Once the other direction has moved on, its sender would take
// what the socket says for old, and never know whether a hole was filled.

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
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
#define VLAN_ID 0x0fff // of a tag; 0 is none: the tag says a priority alone
#define SHOW_MARK 0x5b11ced1 // a copy of a segment, of which the socket is shown the acknowledgement

enum state {
	PASS,	 // the sockets carry the pair; take note
	SPLICED, // rewrite and redirect
	DRAINING, // that from the cut on; the sockets carry what is before it
};

enum verdict {
	ENDED_FIN = 1, // both FINs were acknowledged
	ENDED_RST = 2,
	ENDED_HAND = 3, // by OP_END: nothing goes across any more
};

// The errors of wire_control.
enum errors {
	AGAIN = 11,
	NODEV = 19,
	OVERFLOW = 75,
	NOTCONN = 107,
	HOSTUNREACH = 113,
	ALREADY = 114,
	KEYREJECTED = 129,
};

// What a new connection with a flow's addresses means for it. Unlike the verdict it is
// said of both directions.
enum over {
	OVER = 1, // a SYN is that of a new connection
	REPLACED, // there was one: all packets are the stack's
};

// Which clocks of a sender are of what was believed since the switch.
enum clocked {
	CLOCKED = 1, // tsval
	IN_LINE, // recent too
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

// Every layout begins like this, up to last_seen, under keys of this kind: it tells a
// later version when a flow of this one is over.
struct flow {
	struct bpf_spin_lock lock;
	__u32 state;
	__u32 verdict;	   // enum verdict
	__u32 over;	   // enum over
	__u64 last_seen;   // ns, CLOCK_MONOTONIC; since the switch
	struct rewrite rewrite;

	// What the direction's sender was seen to do, in its own numbers.
	__u32 passed;	  // end of the data that went up to the socket
	__u32 acked;	  // the highest acknowledgement
	__u32 window;	  // the last window, not shifted
	__u32 tsval;	  // the clock: the last before the switch, the newest since
	__u32 fin_end;	  // number after the FIN, when fin is set
	__u32 peer_fin;	  // number after the other side's FIN, as this sender acknowledges it
	__u8 seen;	  // acked, window and tsval are valid
	__u8 fin;	  // this sender sent a FIN
	__u8 peer_finned; // peer_fin is valid
	__u8 fin_acked;	  // this sender acknowledged the other side's FIN
	__u32 end;	  // the highest number after data seen since the switch
	__u32 cut;	  // data from here goes across
	__u32 cut_ack;	  // an acknowledgement from here is of what went across
	__u32 shown;	  // acknowledged, as far as the socket was told
	__u32 owned;	  // what the other socket had received, in its peer's numbers: a floor
			  // for acknowledgements that go there
	__u32 promised;	  // the right edge that the other socket has announced, in its peer's numbers
	__u32 from;	  // acked at the switch
	__u8 barred;	  // bar is valid
	__u8 bar_met;	  // something was dropped for it
	__u8 unfit;	  // before the switch: a packet came for which it is refused, enum errors
	__u8 left;	  // before the switch: wire_egress has seen a packet
	__u8 clocked;	  // enum clocked
	__u32 bar;	  // data and FINs beyond that number are dropped, after the switch
	__u32 edge;	  // of the window that this sender has announced: it never retreats
	__u32 recent;	  // the clock of the last segment in line, since the switch

	// Since the switch.
	__u64 packets;
	__u64 bytes;	   // payload seen, retransmissions included
	__u64 acked_bytes; // of the other direction, acknowledged by this sender
	__u64 retransmits; // segments that started before end
	__u64 last_moved;  // ns: data or a FIN, or an acknowledgement of some
	__u64 shows;	   // copies made for the socket, while draining
	__u64 errors;	   // segments that could not be rewritten: dropped
	__u64 told;	   // ICMP errors about packets to this sender, passed on to the other
	__u64 held_back;   // segments beyond the bar: dropped
	__u64 too_big;	   // for the interface that they were to leave by: dropped
	__u64 warned;	   // ns: when user space was asked last to tell the sender that
	__u64 doubted;	   // ns: when it was asked last whether the sender is still there

	__u64 beyond;	   // so much later than bar is the limit: numbers are too short for it
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

// What ended holds too: a packet was too big for the interface that it was to leave by, and its
// sender is to be told. It is longer than a key.
struct oversize {
	struct key key;
	__u32 mtu;  // of that interface
	__u32 size; // of the packet, or of each of those that it is a bundle of
	__u32 seq;  // of the sender
};

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

static __always_inline int before(__u32 a, __u32 b) { return (__s32)(a - b) < 0; }

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
			return -1;
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

static __noinline void report(const struct key *key)
{
	struct key *k = bpf_ringbuf_reserve(&ended, sizeof(*k), 0);

	if (!k)
		return; // that so many came is seen: then all flows are looked at
	__builtin_memcpy(k, key, sizeof(*k));
	bpf_ringbuf_submit(k, 0);
}

static __noinline struct flow *opposite(const struct flow *f)
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

// Where the socket of a segment is, in the numbers of the segment's sender.
struct place {
	__u32 received;
	__u32 acked, sent;
};

// socket_at looks that up. It says whether there is such a socket.
static __noinline int socket_at(struct __sk_buff *skb, const struct segment *s, struct place *p)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_tcp_sock *tcp;
	struct bpf_sock *socket;
	int found = 0;
	__u32 size;

	if (!s || !p)
		return 0;
	if (s->v6) {
		__builtin_memcpy(tuple.ipv6.saddr, s->key.saddr, 16);
		__builtin_memcpy(tuple.ipv6.daddr, s->key.daddr, 16);
		tuple.ipv6.sport = s->key.sport;
		tuple.ipv6.dport = s->key.dport;
		size = sizeof(tuple.ipv6);
	} else {
		tuple.ipv4.saddr = s->key.saddr[3];
		tuple.ipv4.daddr = s->key.daddr[3];
		tuple.ipv4.sport = s->key.sport;
		tuple.ipv4.dport = s->key.dport;
		size = sizeof(tuple.ipv4);
	}
	socket = bpf_sk_lookup_tcp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	if (socket->state != BPF_TCP_LISTEN) {
		tcp = bpf_tcp_sock(socket);
		if (tcp) {
			p->received = tcp->rcv_nxt;
			p->acked = tcp->snd_una;
			p->sent = tcp->snd_nxt;
			found = 1;
		}
	}
	bpf_sk_release(socket);
	return found;
}

// What a segment may be away from what its socket expects: more than what is under way of a
// pair that is watched.
#define NEAR (1U << 24)
// No segment is larger, bundles (GSO) included.
#define LARGEST (1U << 20)

static __always_inline int near(__u32 n, __u32 from, __u32 to) { return !before(n, from) && !before(to, n); }

// plausible says whether a segment can be of the connection that the sockets carry: anybody
// may send one with its addresses. What the socket would take for nothing must not be
// taken note of: the switch goes by these numbers, and by the clock. A socket counts what it
// sends when it has left, and the acknowledgement may be here by then.
static __always_inline int plausible(struct __sk_buff *skb, const struct segment *s)
{
	struct place p = {};

	if (!socket_at(skb, s, &p))
		return 1; // nobody to ask
	if (!near(s->seq, p.received - NEAR, p.received + NEAR))
		return 0;
	return s->acks ? near(s->ack, p.acked - NEAR, p.sent + LARGEST) : s->rst;
}

// watch takes note of a segment of a pair that the sockets carry. It returns the
// state: other than PASS, it has done nothing.
static __always_inline __u32 watch(struct flow *f, const struct segment *s, int signs)
{
	__u32 end = s->seq + s->len + s->fin + s->syn;
	__u32 state;

	bpf_spin_lock(&f->lock);
	state = f->state;
	if (state == PASS) {
		if (s->acks && (!f->seen || !before(s->ack, f->acked))) {
			f->acked = s->ack;
			f->window = s->window;
		}
		if (end != s->seq && before(f->passed, end))
			f->passed = end;
		if (s->fin || s->rst)
			f->fin = 1;
		if (s->hops <= 1)
			f->unfit = HOSTUNREACH; // no router would pass it on
		else if (signs)
			f->unfit = KEYREJECTED;
		if (s->stamped)
			f->tsval = s->tsval;
		f->seen = 1;
	}
	bpf_spin_unlock(&f->lock);
	return state;
}

// The program believes of a segment what its receiver can be expected to believe:
// anybody may send one with the right addresses. What it does not believe goes
// across all the same, and is not counted.

// other returns the peer's entry, and looks for it once.
static __always_inline struct flow *other(const struct flow *f, struct flow **peer)
{
	if (!*peer)
		*peer = opposite(f);
	return *peer;
}

// acknowledges says whether an acknowledgement can be true: of something that the
// other side was allowed to send, or did send. A segment that begins within the window is
// taken whole, beyond the edge too.
static __always_inline int acknowledges(const struct flow *f, const struct segment *s, struct flow **peer)
{
	if (!s->acks)
		return 0;
	if (!before(f->edge + LARGEST, s->ack))
		return 1;
	return other(f, peer) && !before((*peer)->end + (*peer)->rewrite.seq_add, s->ack);
}

// A clock may go back by one tick, as far as PAWS is concerned.
#define CLOCK_BACK 1

// believes says whether a receiver takes a segment, but for a RST: it is within the window
// (RFC 9293), acknowledges what can be acknowledged (RFC 5961, 5), and its clock has not gone
// back (RFC 7323, 5). It takes note of the clock.
//
// A receiver compares with the clock of what it has received in line. What is in line here
// has been received in line, or is lost behind here: what its sender had sent before it, and
// is overtaken, tells nothing new.
static __always_inline int believes(struct flow *f, const struct segment *s, __u32 end, struct flow **peer)
{
	__u32 add = f->rewrite.seq_add;
	int in_line = !before(f->end, s->seq) && !before(end, f->end);

	if (s->rst || s->syn || !acknowledges(f, s, peer))
		return 0;
	// No window was larger.
	if (before(s->ack, f->acked - (65535U << (f->rewrite.window_in & 15))))
		return 0;
	if (s->stamped && f->clocked == IN_LINE && before(s->tsval + CLOCK_BACK, f->recent))
		return 0;
	if (!in_line) {
		if (!other(f, peer) || before(end + add, (*peer)->acked))
			return 0;
		if (before(f->end, s->seq) && before((*peer)->edge, s->seq + add))
			return 0;
	}
	if (!s->stamped)
		return 1;
	if (!f->clocked || before(f->tsval, s->tsval))
		f->tsval = s->tsval;
	if (in_line)
		f->recent = s->tsval;
	if (in_line || !f->clocked)
		f->clocked = in_line ? IN_LINE : CLOCKED;
	return 1;
}

// acknowledge counts what a segment acknowledges.
static __always_inline void acknowledge(struct flow *f, const struct segment *s, __u64 now)
{
	__u32 edge = s->ack + (s->window << (f->rewrite.window_in & 15));

	if (before(s->ack, f->acked))
		return; // an older one, overtaken
	f->window = s->window;
	if (before(f->edge, edge))
		f->edge = edge;
	// Segments of one sender can come by on several CPUs at a time. Whoever
	// loses four times in a row was overtaken by higher numbers, or leaves
	// its own to the next segment.
	for (int i = 0; i < 4; i++) {
		__u32 was = f->acked;

		if (!before(was, s->ack))
			break;
		if (__sync_val_compare_and_swap(&f->acked, was, s->ack) == was) {
			__sync_fetch_and_add(&f->acked_bytes, s->ack - was);
			f->last_moved = now;
			break;
		}
	}
}

// heed does so for a segment that is not believed otherwise.
static __always_inline void heed(struct flow *f, const struct segment *s, struct flow **peer, __u64 now)
{
	if (acknowledges(f, s, peer))
		acknowledge(f, s, now);
}

enum course {
	ACROSS,
	BOTH, // across; and the socket is shown its acknowledgement
	SHOW, // only that
	UP,   // all of it to the socket
};

// drain says which course a segment takes while the sockets still have something
// to deliver.
static __always_inline enum course drain(struct flow *f, const struct segment *s)
{
	__u32 end = s->seq + s->len + s->fin + s->syn;
	__u32 cut_ack = *(volatile __u32 *)&f->cut_ack;
	int across, show;

	// A RST reaches the socket by the numbers that it knows, in a second try at
	// the latest.
	if (s->rst || s->syn)
		return UP;
	// The socket has it, and says so again. What goes on behind the cut goes across
	// as it is: its receiver knows what is before the cut, or takes it from here.
	if (end != s->seq && !before(f->cut, end))
		return UP;
	if (!s->acks)
		return ACROSS;
	across = end != s->seq || !before(s->ack, cut_ack);
	show = before(f->shown, cut_ack);
	if (show && before(f->shown, s->ack)) {
		f->shown = before(s->ack, cut_ack) ? s->ack : cut_ack;
		if (f->shown == cut_ack)
			report(&s->key); // this sender has all that it gets from the socket
	}
	return !across ? SHOW : show ? BOTH : ACROSS;
}

// Every link takes packets of so many bytes.
#define SMALL 576
#define LOOPBACK 1 // the index of lo, in every network namespace
#define WARN_PAUSE (10 * 1000 * 1000ULL) // ns

// fits_link says whether a packet is as small as the interface that it leaves by wants it. Else
// it is to be dropped, and its sender told, at most once in WARN_PAUSE.
static __always_inline int fits_link(struct __sk_buff *skb, struct flow *f, const struct segment *s, __u64 now)
{
	__u32 size = s->l4 - s->l3 - s->jumbo + s->hdrlen + (skb->gso_size ? skb->gso_size : s->len);
	__u32 mtu = size;
	struct oversize *o;

	// lo looks at nothing that it delivers.
	if (size <= SMALL || s->fragable || f->rewrite.ifindex == LOOPBACK)
		return 1;
	// An interface that is gone says nothing.
	bpf_check_mtu(skb, f->rewrite.ifindex, &mtu, 0, 0);
	if (size <= mtu)
		return 1;
	__sync_fetch_and_add(&f->too_big, 1);
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

#define BAR_NEAR (1U << 29)
#define BAR_STEP (1U << 29)

// lift puts the bar forward on the way to a limit that is further away than sequence
// numbers reach. It needs nobody's help: the flow may have no process.
static __always_inline void lift(struct flow *f, __u32 end)
{
	__u64 step;

	bpf_spin_lock(&f->lock);
	if (f->beyond && before(f->bar, end + BAR_NEAR)) {
		step = f->beyond < BAR_STEP ? f->beyond : BAR_STEP;
		f->bar += step;
		f->beyond -= step;
	}
	bpf_spin_unlock(&f->lock);
}

// A RST where the receiver may be, but need not: at most so often its sender is asked whether it is
// there, in ns.
#define DOUBT_PAUSE (1000 * 1000 * 1000ULL)

// resets says whether a RST ends the flow. Everywhere but at one number its receiver answers it
// with a challenge (RFC 5961, 3), and a sender that is gone answers that with one at that number. So
// it is believed where the receiver has said that it is, and at the end of what was sent: where
// it ends a connection, or is where the receiver has the last block of a SACK. Some send it
// at the FIN that they have sent.
static __always_inline int resets(const struct flow *f, const struct flow *peer, const struct segment *s)
{
	return s->seq + f->rewrite.seq_add == peer->acked || s->seq == f->end ||
	       (f->fin && s->seq == f->fin_end - 1);
}

// doubtful says whether a RST that is not believed may yet be where the receiver is, and it
// is time to ask. If it is true, nobody may be left to say so.
static __always_inline int doubtful(const struct flow *f, const struct flow *peer, const struct segment *s, __u64 now)
{
	__u32 at = s->seq + f->rewrite.seq_add;

	return !before(at, peer->acked) && !before(peer->edge + LARGEST, at) && now - f->doubted >= DOUBT_PAUSE;
}

// account counts a segment of a spliced flow, and tells when the flow is over.
// It says whether the segment may go on: beyond the bar it may not, but the
// acknowledgement that it carries counts.
static __always_inline int account(struct flow *f, const struct segment *s, __u64 now)
{
	const struct rewrite *r = &f->rewrite;
	__u32 end = s->seq + s->len + s->fin;

	if (*(volatile __u64 *)&f->beyond && before(f->bar, end + BAR_NEAR))
		lift(f, end);
	int barred = end != s->seq && *(volatile __u8 *)&f->barred && before(f->bar, end);
	int sends = end != s->seq && !barred;
	struct flow *peer = NULL;
	int news = 0, fin = 0;

	f->last_seen = now;
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
	if (sends && before(s->seq, f->end))
		__sync_fetch_and_add(&f->retransmits, 1);
	if (believes(f, s, end, &peer)) {
		// Behind what was seen; behind a gap it is to be looked at.
		fin = s->fin && sends && !before(end, f->end);
		if (sends && before(f->end, end)) {
			f->end = end;
			f->last_moved = now;
		}
		acknowledge(f, s, now);
	}
	if (f->peer_finned && !f->fin_acked && !before(f->acked, f->peer_fin)) {
		f->fin_acked = 1;
		news = 1;
	}
	if (!fin && !s->rst && !news)
		return !barred;

	if (!other(f, &peer))
		return !barred;
	if (fin && !f->fin) {
		f->fin_end = end;
		f->fin = 1;
		f->last_moved = now;
		peer->peer_fin = end + r->seq_add;
		peer->peer_finned = 1;
	}
	if (f->over) {
		// what comes now is late
	} else if (s->rst && resets(f, peer, s)) {
		heed(f, s, &peer, now); // it says how much its sender had received
		f->verdict = ENDED_RST;
		f->over = peer->over = OVER;
		news = 1;
	} else if (f->fin_acked && peer->fin_acked) {
		f->verdict = ENDED_FIN;
		f->over = peer->over = OVER;
	} else if (s->rst && doubtful(f, peer, s, now)) {
		f->doubted = now;
		news = 1;
	}
	if (news)
		report(&s->key);
	return !barred;
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

	if (draining && before(ack, f->owned)) {
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
		// with it.
		if (peer && before(peer->shown, *(volatile __u32 *)&peer->cut_ack) &&
		    before(f->promised, ack + (__u32)window))
			window = before(ack, f->promised) ? f->promised - ack : 0;
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

// lower passes up a segment with data. The socket would not take note of it if it
// acknowledged what the socket never sent.
static __always_inline int lower(struct __sk_buff *skb, const struct flow *f, const struct segment *s)
{
	__u32 most = sent(skb, f, s);
	__be32 was = bpf_htonl(s->ack), is = bpf_htonl(most);

	if (s->rst)
		return TCX_NEXT;
	if (!s->acks || !before(most, s->ack))
		return TCX_NEXT;
	if (bpf_l4_csum_replace(skb, s->l4 + offsetof(struct tcphdr, check), was, is, 4))
		return TCX_DROP;
	if (bpf_skb_store_bytes(skb, s->l4 + offsetof(struct tcphdr, ack_seq), &is, 4, 0))
		return TCX_DROP;
	return TCX_NEXT;
}

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

SEC("tc")
int wire_ingress(struct __sk_buff *skb)
{
	struct segment s = {};
	__u32 state;
	struct flow *peer = NULL;
	struct flow *f;
	__u64 now;
	int copied;

	if (parse(skb, &s)) {
		// Of the rest as little as can be is looked at: it is others'.
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
		// What a segment acknowledges can be the socket's, and its place be one that the socket has
		// promised, beyond what the receiver has.
		heed(f, &s, &peer, now);
		switch (drain(f, &s)) {
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

// Commands of user space, which arrive as the packet of a test run.
enum op {
	OP_SWITCH = 1, // of watched entries: data goes across from now on
	OP_SETTLE = 2, // of those: all does
	OP_BAR = 3,    // after the switch: bounds what goes across
	OP_END = 4,    // of spliced entries: nothing goes across from now on
	OP_ROUTE = 5,  // packets leave by side.rewrite.ifindex from now on; 0 is as before
};

enum {
	SWITCH_ANYHOW = 1, // even if one may send more than the other has room for
};

// What OP_BAR does to a side.
enum bar {
	BAR_NONE,
	BAR_AT,	  // side.received, in the numbers of the side's peer
	BAR_HERE, // at the end of what has gone across
};

struct command {
	__u32 op;
	__u32 flags;
	struct side {
		struct key key;
		__u32 received; // what the socket has received: rcv_nxt
		__u32 edge;	// its peer can be expected to send until there; of OP_BAR: enum bar
		__u32 promised; // its peer may send until there
		__u32 pad;
		__u64 beyond; // of OP_BAR with BAR_AT: the limit is so much later
		struct rewrite rewrite;
	} side[2];
};

// lacks says whether a socket has not received all that was passed up to it: it has
// a hole, or no room, or a segment is on its way.
static __always_inline int lacks(const struct flow *f, const struct side *s)
{
	return before(s->received, f->passed);
}

// inspect says whether an entry can be switched, and until where its sender has
// room for what the other one sends.
static __always_inline int inspect(struct flow *f, const struct side *s, __u32 *room)
{
	int err = 0;

	bpf_spin_lock(&f->lock);
	if (f->state != PASS)
		err = ALREADY;
	else if (f->fin)
		err = NOTCONN;
	else if (f->unfit)
		err = f->unfit;
	else if (!f->seen || lacks(f, s))
		err = AGAIN;
	*room = f->acked + (f->window << (s->rewrite.window_in & 15));
	bpf_spin_unlock(&f->lock);
	return err;
}

// begin switches an entry. Until cut_ack is known, which takes the cut of the
// other one, no acknowledgement can be of anything that went across. A FIN can
// have come since inspect: it has gone to the socket, which must send it on.
static __always_inline int begin(struct flow *f, const struct side *s, const struct side *other, __u64 now)
{
	int err = 0;

	bpf_spin_lock(&f->lock);
	if (f->fin) {
		err = NOTCONN;
	} else {
		// What came since inspect is on its way to the socket. To go back now, when the
		// other entry is switched, would lose what has gone across.
		f->cut = f->end = lacks(f, s) ? f->passed : s->received;
		f->from = f->shown = f->acked;
		f->edge = f->acked + (f->window << (s->rewrite.window_in & 15));
		f->cut_ack = f->acked + (1U << 30);
		f->owned = other->received;
		f->promised = other->promised;
		// Not memcpy: the verifier allows no call in here.
		f->rewrite = s->rewrite;
		f->last_seen = now;
		f->state = DRAINING;
	}
	bpf_spin_unlock(&f->lock);
	return err;
}

// resume undoes begin, a moment later. What has gone across meanwhile the socket
// lacks: its sender, whom nobody has answered, sends it again.
static __always_inline void resume(struct flow *f)
{
	bpf_spin_lock(&f->lock);
	f->state = PASS;
	bpf_spin_unlock(&f->lock);
}

static __always_inline void know(struct flow *f, const struct flow *peer)
{
	*(volatile __u32 *)&f->cut_ack = peer->cut + peer->rewrite.seq_add;
}

static __always_inline int switch_over(struct flow *a, struct flow *b, const struct command *c, __u64 now)
{
	__u32 room_a, room_b;
	int err = inspect(a, &c->side[0], &room_a);

	if (!err)
		err = inspect(b, &c->side[1], &room_b);
	if (err)
		return err;
	if (!(c->flags & SWITCH_ANYHOW) &&
	    (before(room_b, c->side[0].edge + c->side[0].rewrite.seq_add) ||
	     before(room_a, c->side[1].edge + c->side[1].rewrite.seq_add)))
		return OVERFLOW;
	err = begin(b, &c->side[1], &c->side[0], now);
	if (err)
		return err;
	err = begin(a, &c->side[0], &c->side[1], now);
	if (err) {
		resume(b);
		return err;
	}
	know(a, b);
	know(b, a);
	return 0;
}

static __always_inline void settle(struct flow *f)
{
	bpf_spin_lock(&f->lock);
	if (f->state == DRAINING)
		f->state = SPLICED;
	bpf_spin_unlock(&f->lock);
}

// set_bar does not reach a packet that another CPU is at: it has gone across
// when that CPU is done with it.
static __always_inline void set_bar(struct flow *f, const struct side *s)
{
	bpf_spin_lock(&f->lock);
	f->bar = s->edge == BAR_HERE ? f->end : s->received;
	f->beyond = s->edge == BAR_AT ? s->beyond : 0;
	f->bar_met = 0;
	f->barred = s->edge != BAR_NONE;
	bpf_spin_unlock(&f->lock);
}

static __always_inline void route(struct flow *f, const struct side *s)
{
	if (s->rewrite.ifindex)
		*(volatile __u32 *)&f->rewrite.ifindex = s->rewrite.ifindex;
}

static __always_inline int end_by_hand(struct flow *f)
{
	int err = 0;

	bpf_spin_lock(&f->lock);
	if (f->state != SPLICED)
		err = AGAIN;
	else if (f->over || f->verdict)
		err = ALREADY;
	else
		f->verdict = ENDED_HAND;
	bpf_spin_unlock(&f->lock);
	return err;
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
	int err;

	if ((void *)(c + 1) > end)
		return 22; // EINVAL
	key = c->side[0].key;
	a = bpf_map_lookup_elem(&flows, &key);
	key = c->side[1].key;
	b = bpf_map_lookup_elem(&flows, &key);
	if (!a || !b)
		return 2; // ENOENT
	switch (c->op) {
	case OP_SWITCH:
		return switch_over(a, b, c, now);
	case OP_SETTLE:
		settle(a);
		settle(b);
		return 0;
	case OP_BAR:
		set_bar(a, &c->side[0]);
		set_bar(b, &c->side[1]);
		return 0;
	case OP_ROUTE:
		route(a, &c->side[0]);
		route(b, &c->side[1]);
		return 0;
	case OP_END:
		err = end_by_hand(a);
		if (!err)
			err = end_by_hand(b);
		if (!err)
			report(&key);
		return err;
	}
	return 22;
}

// Makes the type known to BTF, and so to Go.
const struct command *command_type __attribute__((unused));
const struct oversize *oversize_type __attribute__((unused));

char _license[] SEC("license") = "Dual BSD/GPL";
