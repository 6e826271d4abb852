// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The program believes of a segment what its receiver can be expected to believe:
// anybody may send one with the right addresses. What it does not believe goes
// across all the same, and is not counted.

#ifndef WIRE_BELIEF_H
#define WIRE_BELIEF_H

#include "wire_watch.h"

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
// After so long without a segment in line the clock of the last one counts for nothing (RFC 7323, 5.5): it may
// have come half way round. What a sender says out of line meanwhile, as its keep-alive probes, does not count: its
// receiver takes no note of their clock either.
#define CLOCK_LASTS (__s32)(24ULL * 24 * 60 * 60 * 1000 * 1000 * 1000 >> CLOCK_UNIT)
#define CLOCK_UNIT 30 // 2^30 ns, about a second

// What is thought of a segment.
enum belief {
	NOT,
	OUTDATED, // its receiver takes it if it has not received what came here before in line
	BELIEVED,
};

// believes says whether a receiver takes a segment, but for a RST: it is within the window
// (RFC 9293), acknowledges what can be acknowledged (RFC 5961, 5), and its clock has not gone
// back (RFC 7323, 5). It takes note of the clock.
//
// A receiver compares with the clock of what it has received in line. What is in line here
// has been received in line, or is lost behind here: what its sender had sent before it, and
// is overtaken, tells nothing new.
static __always_inline enum belief believes(struct flow *f, const struct segment *s, __u32 end, struct flow **peer, __u64 now)
{
	__u32 add = f->rewrite.seq_add;
	__u32 at = now >> CLOCK_UNIT;
	int in_line = !before(f->end, s->seq) && !before(end, f->end);

	if (s->rst || s->syn || !acknowledges(f, s, peer))
		return NOT;
	// No window was larger.
	if (before(s->ack, f->acked - (65535U << (f->rewrite.window_in & 15))))
		return NOT;
	if (!in_line) {
		if (!other(f, peer) || before(end + add, (*peer)->acked))
			return NOT;
		if (before(f->end, s->seq) && before((*peer)->edge, s->seq + add))
			return NOT;
	}
	if (!s->stamped)
		return BELIEVED;
	if (f->clocked && (__s32)(at - f->clocked_at) >= CLOCK_LASTS) // another CPU can be ahead
		f->clocked = 0;
	if (f->clocked == IN_LINE && before(s->tsval + CLOCK_BACK, f->recent))
		return OUTDATED;
	if (!f->clocked || before(f->tsval, s->tsval))
		f->tsval = s->tsval;
	if (in_line)
		f->recent = s->tsval;
	if (in_line || !f->clocked) {
		f->clocked = in_line ? IN_LINE : CLOCKED;
		f->clocked_at = at;
	}
	return BELIEVED;
}

// raise puts a number forward, and says how far. Segments of one sender can come by on several CPUs
// at a time: to read, compare and write would now and then have the lower number stay. Whoever loses
// four times in a row was overtaken by higher numbers, or leaves its own to the next segment.
static __always_inline __u32 raise(__u32 *number, __u32 to)
{
	for (int i = 0; i < 4; i++) {
		__u32 was = *(volatile __u32 *)number;

		if (!before(was, to))
			break;
		if (__sync_val_compare_and_swap(number, was, to) == was)
			return to - was;
	}
	return 0;
}

// acknowledge counts what a segment acknowledges.
static __always_inline void acknowledge(struct flow *f, const struct segment *s, __u64 now)
{
	__u32 news;

	if (before(s->ack, f->acked))
		return; // an older one, overtaken
	f->window = s->window;
	raise(&f->edge, s->ack + (s->window << (f->rewrite.window_in & 15)));
	news = raise(&f->acked, s->ack);
	if (news) {
		__sync_fetch_and_add(&f->acked_bytes, news);
		f->last_moved = now;
	}
}

// finned says whether the other side's FIN, known as peer_fin, is believed. One that was outdated is, when its receiver
// has acknowledged just that, and nothing came by since that it could have meant.
static __always_inline int finned(struct flow *f, __u64 peer_fin, struct flow **peer)
{
	__u32 at = peer_fin, end;

	if (peer_fin & FINNED)
		return 1;
	if (f->acked != at || !other(f, peer))
		return 0;
	end = at - (*peer)->rewrite.seq_add;
	if (!before((*peer)->end, end))
		return 0;
	raise(&(*peer)->end, end);
	(*peer)->fin_end = end;
	(*peer)->fin = 1;
	*(volatile __u64 *)&f->peer_fin = FINNED | at;
	return 1;
}

#endif
