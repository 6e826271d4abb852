// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What is noted of a pair while the sockets carry it.

#ifndef WIRE_WATCH_H
#define WIRE_WATCH_H

#include "wire_segment.h"

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

#endif
