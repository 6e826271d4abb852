//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Says which sockets are in a sockmap or sockhash. From user space a map can be
// looked up only if its values have eight bytes, and that gives a cookie alone;
// an iterator sees the sockets of every one.

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define AF_INET 2
#define AF_INET6 10

#define kernel_struct __attribute__((preserve_access_index))

// Of the kernel's structures, what is read here.
struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
} kernel_struct;

struct ns_common {
	unsigned int inum;
} kernel_struct;

struct net {
	struct ns_common ns;
} kernel_struct;

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport; // in network order, and skc_num is not
	__u16 skc_num;
	unsigned short skc_family;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} kernel_struct;

struct socket;

struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
	__u16 sk_protocol;
} kernel_struct;

struct inode {
	unsigned long i_ino;
} kernel_struct;

struct socket_alloc {
	struct inode vfs_inode;
} kernel_struct;

struct seq_file;
struct bpf_map;

struct bpf_iter_meta {
	struct seq_file *seq;
} kernel_struct;

struct bpf_iter__sockmap {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	struct sock *sk;
} kernel_struct;

// One socket of a map.
struct member {
	__u64 inode; // 0: its descriptor is closed, or it was never accepted
	__u32 netns; // inode
	__u16 family;
	__u16 protocol;
	__u8 local[16]; // an IPv4 address has the first four bytes
	__u8 remote[16];
	__u16 local_port;
	__u16 remote_port;
	__u32 pad;
};

const struct member *member_type __attribute__((unused));

SEC("iter/sockmap")
int sockmaps_list(struct bpf_iter__sockmap *ctx)
{
	struct sock *sk = ctx->sk;
	struct member m = {};

	if (!sk)
		return 0; // a free place, or the end
	m.family = sk->__sk_common.skc_family;
	m.protocol = BPF_CORE_READ(sk, sk_protocol);
	m.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	struct socket *socket = sk->sk_socket;
	if (socket) // the first thing in its socket_alloc
		m.inode = BPF_CORE_READ((struct socket_alloc *)socket, vfs_inode.i_ino);
	if (m.family == AF_INET || m.family == AF_INET6) {
		m.local_port = sk->__sk_common.skc_num;
		m.remote_port = __builtin_bswap16(sk->__sk_common.skc_dport);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
		m.remote_port = sk->__sk_common.skc_dport;
#endif
	}
	if (m.family == AF_INET) {
		__be32 local = sk->__sk_common.skc_rcv_saddr, remote = sk->__sk_common.skc_daddr;

		__builtin_memcpy(m.local, &local, sizeof(local));
		__builtin_memcpy(m.remote, &remote, sizeof(remote));
	} else if (m.family == AF_INET6) {
		BPF_CORE_READ_INTO(&m.local, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
		BPF_CORE_READ_INTO(&m.remote, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
	}
	bpf_seq_write(ctx->meta->seq, &m, sizeof(m)); // a full buffer has the kernel call again
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
