// Package bpf holds the BPF programs, compiled, and the types that Go and C
// share. Debian's clang 14 compiles them; the objects are committed, so
// building needs no compiler.
package bpf

//go:generate go tool bpf2go -go-package bpf -target bpfel,bpfeb -type key -type rewrite -type flow -type command -type oversize -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" Wire wire.c
//go:generate go tool bpf2go -go-package bpf -target bpfel,bpfeb -type lane -type route -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" Sockmap sockmap.c
//go:generate go tool bpf2go -go-package bpf -target bpfel,bpfeb -type seen -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" Sockbench sockbench.c
//go:generate go tool bpf2go -go-package bpf -target bpfel,bpfeb -type member -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" Sockmaps sockmaps.c
