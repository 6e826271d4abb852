//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Redirecting between sockets, with an account. A pair of sockets is two lanes,
// one a direction. Both sockets are in the map members, which has no program:
// that is where segments are redirected to, and it keeps what a socket still
// has while it leaves. A lane's source is in the map sources too, whose verdict
// is sockmap_verdict.
//
// The kernel's redirect has no back-pressure: its queue in front of the drain
// has no limit and is charged to nobody. So a segment is redirected only if the
// drain's send buffer has room for it and for all that is queued before it; any
// other is passed to the source's own socket, where it counts against the
// receive buffer and closes the window as always, and user space forwards it.
// Order is kept because nothing is redirected before user space has forwarded
// all that it was passed.
//
// The kernel's worker may be kept from sending what was redirected all the same,
// by a shortage of memory for one. What is passed to that socket queues behind
// it, charged to nobody and with the window open. So a source has a filter too,
// sockmap_filter, which drops data beyond BEHIND_MAX of these as if it had been
// lost on its way. User space has it drop everything for the moment in which a
// source leaves: a segment between the receive queue and the verdict would be
// dropped by the kernel then, for good, though it is acknowledged.
//
// The program runs with its source's socket locked: a lane has one writer here
// and one, for the fields below the line, in user space.

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define PAIRS_MAX 8192		// default size; the loader may change it
#define LANES_MAX (2 * PAIRS_MAX)
#define QUEUE_MAX (1U << 20)	// bytes in front of a drain's send buffer, whatever its size
#define BEHIND_MAX (2U << 20) // bytes passed behind what the worker has to send to their own socket
#define SEGMENT_OVERHEAD 4096	// bytes of kernel memory beside a segment's data
#define TRIM_STEP 4095		// what bpf_skb_adjust_room cuts off at once
#define TRIM_STEPS 64

#define ESTABLISHED 1
#define CLOSE_WAIT 8
#define SEND_SHUTDOWN 2

// Of the kernel's structures, what is read here.
struct netns_ipv4 {
	unsigned int sysctl_tcp_notsent_lowat;
} __attribute__((preserve_access_index));

struct net {
	struct netns_ipv4 ipv4;
} __attribute__((preserve_access_index));

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	volatile unsigned char skc_state;
	possible_net_t skc_net;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
	int sk_wmem_queued;
	int sk_sndbuf;
	int sk_err;
	__u8 sk_shutdown;
	void *sk_user_data;
} __attribute__((preserve_access_index));

struct sk_buff_head {
	__u32 qlen;
} __attribute__((preserve_access_index));

struct sk_psock {
	struct sk_buff_head ingress_skb; // redirected to the socket, and not sent yet
} __attribute__((preserve_access_index));

struct inet_sock {
	struct sock sk;
} __attribute__((preserve_access_index));

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} __attribute__((preserve_access_index));

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 write_seq;
	__u32 copied_seq;
	__u32 snd_nxt;
	__u32 notsent_lowat;
} __attribute__((preserve_access_index));

struct sk_buff {
	char cb[48]; // begins with the sequence number of the first byte
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *) __ksym;

enum fault {
	FAULT_GAP = 1,	// bytes are missing before a segment
	FAULT_TRIM = 2, // bytes that came twice could not be cut off
};

struct lane {
	// The program's.
	__u64 redirected; // bytes handed to the drain's socket
	__u64 passed;	  // bytes left to user space
	__u64 trimmed;	  // bytes that the kernel gave a second time
	__u64 last;	  // ns, CLOCK_MONOTONIC: of the last redirect
	__u32 next;	  // sequence number of the next byte, once started
	__u32 started;
	__u32 fault;	  // enum fault
	__u32 written;	  // the drain's write_seq, as sockmap_look has seen it
	__u32 queued;	  // segments in front of the drain's send queue, likewise
	__u32 dropped;	  // segments that the filter has not let in
	__u64 beside;	  // of what was passed, bytes that wait behind nothing of the worker's

	// User space's.
	__u64 forwarded;  // of what was passed, bytes in the drain's send queue
	__u64 taken;	  // of what was passed, bytes read from the source
	__u64 budget;	  // of redirected and passed together
	__u32 base;	  // the drain's write_seq when nothing was redirected or forwarded yet
	__u32 open;	  // redirect
	__u32 still;	  // drop what comes
	__u32 pad1;
	__u64 pad[3];	  // lanes share no cache line
};

struct route {
	__u64 drain; // cookie
	__u32 lane;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LANES_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct lane);
} lanes SEC(".maps");

// By the cookie of the source.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LANES_MAX);
	__type(key, __u64);
	__type(value, struct route);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, LANES_MAX);
	__type(key, __u64);
	__type(value, __u64);
} members SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, LANES_MAX);
	__type(key, __u64);
	__type(value, __u64);
} sources SEC(".maps");

// queued counts the segments that wait in front of a socket's send queue. Since
// Linux 6.5 one that is being sent is among them until all of it is.
static __always_inline __u32 queued(struct tcp_sock *tp)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	// The lowest bits are flags (SK_USER_DATA_PTRMASK).
	struct sk_psock *psock = (void *)((unsigned long)sk->sk_user_data & ~7UL);

	return psock ? BPF_CORE_READ(psock, ingress_skb.qlen) : 0;
}

// unsent_most is how many bytes that were never sent a socket may have to take
// more (TCP_NOTSENT_LOWAT, or the system's default).
static __always_inline __u32 unsent_most(struct tcp_sock *tp)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	__u32 most = tp->notsent_lowat;

	return most ? most : BPF_CORE_READ(sk, __sk_common.skc_net.net, ipv4.sysctl_tcp_notsent_lowat);
}

// room says whether the drain's send buffer takes len bytes behind what is
// queued for it.
static __always_inline int room(struct lane *lane, struct tcp_sock *tp, __u32 len)
{
	struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	unsigned char state = sk->__sk_common.skc_state;

	if (state != ESTABLISHED && state != CLOSE_WAIT)
		return 0;
	if (sk->sk_err || (sk->sk_shutdown & SEND_SHUTDOWN))
		return 0;
	// Modulo 2^32: what was handed over, less what has arrived.
	__s32 queued = (__u32)(lane->redirected + lane->forwarded) - (tp->write_seq - lane->base);
	if (queued < 0)
		queued = 0; // user space has sent, and not said so yet
	if ((__u32)queued + len > QUEUE_MAX)
		return 0;
	// What the worker could not send would hold up what is passed to that socket.
	if ((__u64)(tp->write_seq - tp->snd_nxt) + queued + len > unsent_most(tp))
		return 0;
	// Twice the bytes: a send buffer counts memory.
	return (__s64)sk->sk_wmem_queued + 2 * ((__s64)queued + len) + SEGMENT_OVERHEAD <= sk->sk_sndbuf;
}

static __always_inline int fits(struct lane *lane, __u64 *drain, __u32 len)
{
	int yes = 0;
	struct bpf_sock *sk = bpf_map_lookup_elem(&members, drain);

	if (!sk)
		return 0;
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		yes = room(lane, tp, len);
	bpf_sk_release(sk);
	return yes;
}

// trim cuts off what the kernel has given before: a retransmission that
// overlaps what had come, or the read part of a segment that was in the queue
// when the socket became a source.
static __always_inline int trim(struct __sk_buff *skb, struct lane *lane)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);
	__s32 over = lane->next - *(__u32 *)kernel->cb;

	if (over == 0)
		return 0;
	if (over < 0) {
		if (skb->len == 0)
			return 0;
		lane->fault |= FAULT_GAP;
		return -1;
	}
	if ((__u32)over > skb->len)
		over = skb->len;
	lane->trimmed += over;
	for (int i = 0; i < TRIM_STEPS && over > 0; i++) {
		__s32 n = over < TRIM_STEP ? over : TRIM_STEP;

		if (bpf_skb_adjust_room(skb, -n, 0, 0))
			break;
		over -= n;
	}
	if (over == 0)
		return 0;
	lane->fault |= FAULT_TRIM;
	return -1;
}

// worker_busy says whether something waits to be sent to the socket that skb
// has come to.
static __always_inline int worker_busy(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : 0;

	return tp && queued(tp);
}

SEC("sk_skb/verdict")
int sockmap_verdict(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct route *route = bpf_map_lookup_elem(&routes, &cookie);

	if (!route)
		return SK_PASS;
	__u32 index = route->lane;
	struct lane *lane = bpf_map_lookup_elem(&lanes, &index);
	if (!lane)
		return SK_PASS;
	if (!lane->started) {
		struct bpf_sock *sk = skb->sk;
		struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : 0;

		if (!tp)
			return SK_PASS;
		lane->next = tp->copied_seq;
		lane->started = 1;
	}
	if (trim(skb, lane))
		return SK_PASS; // what is passed wakes user space, which sees the fault first
	__u32 len = skb->len;
	if (!len)
		return SK_DROP; // a FIN alone
	lane->next += len;
	if (lane->open && lane->passed == *(volatile __u64 *)&lane->forwarded &&
	    lane->redirected + lane->passed + len <= lane->budget && fits(lane, &route->drain, len)) {
		lane->redirected += len;
		lane->last = bpf_ktime_get_ns();
		return bpf_sk_redirect_hash(skb, &members, &route->drain, 0);
	}
	lane->passed += len;
	if (!worker_busy(skb))
		lane->beside = lane->passed; // the queue is empty, and this goes past it
	return SK_PASS;
}

// sockmap_look writes down in the lane what the drain's write_seq is and how
// much waits in front of it. It is run by BPF_PROG_TEST_RUN, with a route as its
// packet.
SEC("tc")
int sockmap_look(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct route *look = data;
	int error = 2; // ENOENT

	if (data + sizeof(*look) > end)
		return 22; // EINVAL
	__u32 index = look->lane;
	__u64 drain = look->drain;
	struct lane *lane = bpf_map_lookup_elem(&lanes, &index);
	if (!lane)
		return 22;
	struct bpf_sock *sk = bpf_map_lookup_elem(&members, &drain);
	if (!sk)
		return error;
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		lane->queued = queued(tp); // first: what leaves meanwhile is written
		lane->written = tp->write_seq;
		error = 0;
	}
	bpf_sk_release(sk);
	return error;
}

// behind bounds the bytes that were passed and may still wait for the worker.
static __always_inline __u64 behind(struct lane *lane)
{
	__u64 taken = *(volatile __u64 *)&lane->taken;

	return lane->passed - (taken > lane->beside ? taken : lane->beside);
}

// sockmap_filter is the filter of each source's socket: it sees a TCP header and
// what follows. Its result is how much of that is taken.
SEC("socket")
int sockmap_filter(struct __sk_buff *skb)
{
	__u8 offset; // of the data, in words, in the upper half of its byte

	if (bpf_skb_load_bytes(skb, 12, &offset, sizeof(offset)))
		return 0;
	if (skb->len <= (offset >> 4) * 4)
		return skb->len; // no data
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct route *route = bpf_map_lookup_elem(&routes, &cookie);
	if (!route)
		return skb->len;
	__u32 index = route->lane;
	struct lane *lane = bpf_map_lookup_elem(&lanes, &index);
	if (!lane)
		return skb->len;
	if (lane->still || (behind(lane) > BEHIND_MAX && worker_busy(skb))) {
		lane->dropped++;
		return 0;
	}
	return skb->len;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
