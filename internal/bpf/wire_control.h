// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Commands of user space: a pair is switched, settled, bounded, ended, or leaves elsewhere.

#ifndef WIRE_CONTROL_H
#define WIRE_CONTROL_H

#include "wire_flow.h"
#include "wire_belief.h"

// Commands of user space, which arrive as the packet of a test run.
enum op {
	OP_SWITCH = 1, // of watched entries: data goes across from now on
	OP_SETTLE = 2, // of those: all does
	OP_BAR = 3,    // after the switch: bounds what goes across
	OP_END = 4,    // of spliced entries: nothing goes across from now on
	OP_ROUTE = 5,  // packets leave by side.rewrite.ifindex from now on; 0 is as before
	OP_DRAIN = 6,  // of switched entries: the sockets deliver what is before side.received
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
		fence(f); // who sees the state sees the rest: see wire_ingress
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

// lag takes note of what a socket has received that was past the program before its pair was
// entered. A receiver can hold what went across behind it, and move on when the socket has filled the gap.
static __always_inline void lag(struct flow *f, const struct side *s, const struct side *other)
{
	bpf_spin_lock(&f->lock);
	if (before(f->cut, s->received))
		f->cut = s->received;
	raise(&f->end, s->received);
	if (before(f->owned, other->received))
		f->owned = other->received;
	bpf_spin_unlock(&f->lock);
}

static __always_inline void unsettle(struct flow *f)
{
	bpf_spin_lock(&f->lock);
	fence(f);
	if (f->state == SPLICED)
		f->state = DRAINING;
	bpf_spin_unlock(&f->lock);
}

static __always_inline int drain_again(struct flow *a, struct flow *b, const struct command *c)
{
	if (a->state == PASS || b->state == PASS)
		return AGAIN;
	lag(a, &c->side[0], &c->side[1]);
	lag(b, &c->side[1], &c->side[0]);
	know(a, b);
	know(b, a);
	unsettle(a);
	unsettle(b);
	return 0;
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
	case OP_DRAIN:
		return drain_again(a, b, c);
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

#endif
