//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The programs that `spliced bench sockmap` measures: what a socket receives
// (sk_skb) or sends (sk_msg) is passed on as it is, or redirected to the second
// socket of the map. Each counts the bytes that it has seen, by which the bench
// knows that they went this way.

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define SOURCE 0 // keys of the map: whose bytes the program sees
#define DRAIN 1	 // where they are redirected to

// Set before the programs are loaded.
volatile const __u64 redirect_flags = 0; // BPF_F_INGRESS: into the drain's receive queue
volatile const __u32 message_bytes = 0;	 // what the stream parser cuts the stream into

struct seen {
	__u64 bytes;
	__u64 refused; // calls in which the drain was not in the map, or not connected
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} counted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

static __always_inline void count(__u32 bytes, int verdict)
{
	__u32 first = 0;
	struct seen *seen = bpf_map_lookup_elem(&counted, &first);

	if (!seen)
		return;
	__sync_fetch_and_add(&seen->bytes, bytes);
	if (verdict == SK_DROP)
		__sync_fetch_and_add(&seen->refused, 1);
}

SEC("sk_skb/stream_verdict")
int skb_pass(struct __sk_buff *skb)
{
	count(skb->len, SK_PASS);
	return SK_PASS;
}

SEC("sk_skb/stream_verdict")
int skb_redirect(struct __sk_buff *skb)
{
	__u32 len = skb->len;
	int verdict = bpf_sk_redirect_map(skb, &sockets, DRAIN, redirect_flags);

	count(len, verdict);
	return verdict;
}

// skb_parse has the verdict called for messages of one length, each in one
// piece.
SEC("sk_skb/stream_parser")
int skb_parse(struct __sk_buff *skb)
{
	return message_bytes;
}

SEC("sk_msg")
int msg_pass(struct sk_msg_md *msg)
{
	count(msg->size, SK_PASS);
	return SK_PASS;
}

SEC("sk_msg")
int msg_redirect(struct sk_msg_md *msg)
{
	__u32 size = msg->size;
	int verdict = bpf_msg_redirect_map(msg, &sockets, DRAIN, redirect_flags);

	count(size, verdict);
	return verdict;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
