// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What the maps hold: an entry for each direction of a pair, and what user space is told.

#ifndef WIRE_FLOW_H
#define WIRE_FLOW_H

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

#define LOOPBACK 1 // the index of lo, in every network namespace

#define FLOWS_MAX 262144 // default size; the loader may change it

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
	MSGSIZE = 90,
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

// What is known of a side's FIN: bits beside the number after it.
#define FINNED (1ULL << 32)
#define MAYBE_FINNED (1ULL << 33) // it came with a clock of the past

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
	__u64 peer_fin;	  // number after the other side's FIN, as this sender acknowledges it, and FINNED or
			  // MAYBE_FINNED: together, since packets of both sides are at it at once
	__u8 seen;	  // acked, window and tsval are valid
	__u8 fin;	  // this sender sent a FIN
	__u8 fin_acked;	  // this sender acknowledged the other side's FIN
	__u8 clocked;	  // enum clocked
	__u32 end;	  // the highest number after data seen since the switch
	__u32 cut;	  // data from here goes across
	__u32 cut_ack;	  // an acknowledgement from here is of what went across
	__u32 shown;	  // acknowledged, as far as the socket was told
	__u32 owned;	  // what the other socket had received, in its peer's numbers: a floor
			  // for acknowledgements that go there
	__u32 promised;	  // a right edge that the other socket's peer has heard of, in its numbers
	__u32 from;	  // acked at the switch
	__u8 barred;	  // bar is valid
	__u8 bar_met;	  // something was dropped for it
	__u8 unfit;	  // before the switch: a packet came for which it is refused, enum errors
	__u8 left;	  // before the switch: wire_egress has seen a packet
	__u8 divided;	  // since the switch: a packet came in parts, or has to leave so
	__u32 bar;	  // data and FINs beyond that number are dropped, after the switch
	__u32 edge;	  // of the window that this sender has announced: it never retreats
	__u32 recent;	  // the clock of the last segment in line, since the switch
	__u32 clocked_at; // when that came, in CLOCK_UNIT; with CLOCKED the first segment that counts

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
	__u64 begged;	   // ns: when it was noted last that it says something again to one on this machine

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

// fence has what was read and written before it come before what is read and written behind it, for all CPUs. BPF has
// no such instruction; every atomic one that returns what was there is a full barrier.
static __always_inline void fence(struct flow *f)
{
	(void)__sync_val_compare_and_swap(&f->over, 0, 0);
}

static __noinline void report(const struct key *key)
{
	struct key *k = bpf_ringbuf_reserve(&ended, sizeof(*k), 0);

	if (!k)
		return; // that so many came is seen: then all flows are looked at
	__builtin_memcpy(k, key, sizeof(*k));
	bpf_ringbuf_submit(k, 0);
}

static __always_inline int before(__u32 a, __u32 b) { return (__s32)(a - b) < 0; }

// owes says whether, while sockets drain, one has bytes for this sender that it has not acknowledged.
static __always_inline int owes(const struct flow *f)
{
	return before(*(volatile __u32 *)&f->shown, *(volatile __u32 *)&f->cut_ack);
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

#endif
