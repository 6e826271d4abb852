// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What is counted of a segment that goes across, and which of them ends its flow.

#ifndef WIRE_ACCOUNT_H
#define WIRE_ACCOUNT_H

#include "wire_belief.h"

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

// At most so often somebody is asked whether it is there, in ns: after a RST where its receiver may be, but need not,
// or a silence.
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

// may_reset says whether a RST that is not believed may yet be where the receiver is.
static __always_inline int may_reset(const struct flow *f, const struct flow *peer, const struct segment *s)
{
	__u32 at = s->seq + f->rewrite.seq_add;

	return !before(at, peer->acked) && !before(peer->edge + LARGEST, at);
}

// doubtful says whether that is so, and it is time to ask. If it is true, nobody may be left to say so.
static __always_inline int doubtful(const struct flow *f, const struct flow *peer, const struct segment *s, __u64 now)
{
	return may_reset(f, peer, s) && now - f->doubted >= DOUBT_PAUSE;
}

// For so long, in ns, a peer on this machine is waited for.
#define SILENCE (200 * 1000 * 1000ULL)

// beg takes note that something is said again to a peer on this machine, and has user space ask that peer whether it is
// there where it has answered nothing since that was so before. It is looked at once in SILENCE at most. A peer that is gone says
// nothing itself: the kernel has no RST for a packet whose route is not one to this machine, and
// what bpf_redirect_neigh finds by lo is that, of IPv4, for addresses of lo alone.
// A function of its own: the verifier would go through all of account once more for each way here.
static __noinline int beg(struct flow *f, const struct segment *s, __u64 now)
{
	__u64 begged = f->begged;
	struct flow *peer = NULL;

	f->begged = now;
	if (f->over || !other(f, &peer))
		return 0;
	if (begged > *(volatile __u64 *)&peer->last_seen && now - peer->doubted >= DOUBT_PAUSE) {
		peer->doubted = now;
		report(&s->key);
	}
	return 0;
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
	int again = before(s->seq, f->end); // a probe too
	struct flow *peer = NULL;
	__u64 peer_fin;
	int news = 0, fin = 0;

	f->last_seen = now;
	if (again && r->ifindex == LOOPBACK && now - f->begged >= SILENCE)
		beg(f, s, now);
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
	if (sends && again)
		__sync_fetch_and_add(&f->retransmits, 1);
	switch (believes(f, s, end, &peer, now)) {
	case BELIEVED:
		// Behind what was seen; behind a gap it is to be looked at.
		fin = s->fin && sends && !before(end, f->end);
		if (sends && raise(&f->end, end))
			f->last_moved = now;
		acknowledge(f, s, now);
		break;
	case OUTDATED:
		if (s->fin && sends && !f->fin && before(f->end, end) && other(f, &peer)) {
			__u64 was = *(volatile __u64 *)&peer->peer_fin;

			if (!(was & FINNED))
				__sync_val_compare_and_swap(&peer->peer_fin, was, MAYBE_FINNED | (__u32)(end + r->seq_add));
		}
		break;
	case NOT:
		break;
	}
	peer_fin = *(volatile __u64 *)&f->peer_fin;
	if (peer_fin && !f->fin_acked && !before(f->acked, peer_fin) && finned(f, peer_fin, &peer)) {
		f->fin_acked = 1;
		news = 1;
		fence(f); // the other FIN may be acknowledged this moment: one of both CPUs sees that both are
	}
	if (!fin && !s->rst && !news)
		return !barred;

	if (!other(f, &peer))
		return !barred;
	if (fin && !f->fin) {
		f->fin_end = end;
		f->fin = 1;
		f->last_moved = now;
		*(volatile __u64 *)&peer->peer_fin = FINNED | (__u32)(end + r->seq_add);
	}
	if (f->over) {
		// what comes now is late
	} else if (s->rst && resets(f, peer, s)) {
		if (acknowledges(f, s, &peer))
			acknowledge(f, s, now); // it says how much its sender had received
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

#endif
