package probe

import (
	"bytes"
	"fmt"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// The probes below tell a reference from a copy: they overwrite the source
// once the call that moved its bytes has returned. Who reads the new bytes at
// the other end has been given the very page.

const (
	sharedReason = "bytes written to the source afterwards arrived: pages are shared"
	copiedReason = "the bytes from before arrived: the kernel has made a copy"
)

func before() []byte { return page('o') }
func after() []byte  { return page('n') }

// judge says what the bytes that arrived mean.
func judge(name string, got []byte) Capability {
	switch {
	case bytes.Equal(got, after()):
		return yes(name, sharedReason)
	case bytes.Equal(got, before()):
		return no(name, copiedReason)
	}
	return unknown(name, "bytes arrived that are neither the old nor the new ones")
}

// filePages splices a page of a file to a TCP socket.
func filePages(kind, dir string) Capability {
	name := "pages-shared." + kind + "-to-tcp"
	var c closers
	defer c.close()
	f, err := tempFile(&c, dir, before())
	if err != nil {
		return failed(name, err)
	}
	a, b, err := newPair(&c, syscall.AF_INET)
	if err != nil {
		return failed(name, err)
	}
	r, w, err := newPipe(&c)
	if err != nil {
		return failed(name, err)
	}
	if n, err := sys.Splice(int(f.Fd()), w, chunk); err != nil || n != chunk {
		return failed(name, fmt.Errorf("splice from the file: %d bytes: %w", n, orShort(err)))
	}
	if n, err := sys.Splice(r, a, chunk); err != nil || n != chunk {
		return failed(name, fmt.Errorf("splice to the socket: %d bytes: %w", n, orShort(err)))
	}
	if _, err := f.WriteAt(after(), 0); err != nil {
		return failed(name, missing(err))
	}
	got := make([]byte, chunk)
	if err := readFull(b, got); err != nil {
		return unknown(name, err.Error())
	}
	return judge(name, got)
}

// sendfilePages sends a page of a file with sendfile(2).
func sendfilePages() Capability {
	const name = "pages-shared.sendfile-to-tcp"
	var c closers
	defer c.close()
	f, err := tempFile(&c, tempDir(), before())
	if err != nil {
		return failed(name, err)
	}
	a, b, err := newPair(&c, syscall.AF_INET)
	if err != nil {
		return failed(name, err)
	}
	if n, err := sys.Sendfile(a, int(f.Fd()), chunk); err != nil || n != chunk {
		return failed(name, fmt.Errorf("sendfile: %d bytes: %w", n, orShort(err)))
	}
	if _, err := f.WriteAt(after(), 0); err != nil {
		return failed(name, missing(err))
	}
	got := make([]byte, chunk)
	if err := readFull(b, got); err != nil {
		return unknown(name, err.Error())
	}
	return judge(name, got)
}

// SocketPages tells whether splice(2) from a TCP socket to another hands on
// references, which is what makes it cheaper than reading and writing. A page
// of a file travels over two loopback connections with a splice between them
// and is overwritten at the very end. The loopback device hands the page over
// as it is, so a copy is the work of splice(2).
func SocketPages() Capability {
	const name = "pages-shared.tcp-to-tcp"
	var c closers
	defer c.close()
	f, err := tempFile(&c, tempDir(), before())
	if err != nil {
		return failed(name, err)
	}
	a, b, err := newPair(&c, syscall.AF_INET)
	if err != nil {
		return failed(name, err)
	}
	d, e, err := newPair(&c, syscall.AF_INET)
	if err != nil {
		return failed(name, err)
	}
	r, w, err := newPipe(&c)
	if err != nil {
		return failed(name, err)
	}
	if n, err := sys.Sendfile(a, int(f.Fd()), chunk); err != nil || n != chunk {
		return failed(name, missing(fmt.Errorf("sendfile: %d bytes: %w", n, orShort(err))))
	}
	for moved := 0; moved < chunk; {
		if err := readable(b); err != nil {
			return unknown(name, err.Error())
		}
		n, err := sys.Splice(b, w, chunk-moved)
		if err != nil || n == 0 {
			return failed(name, fmt.Errorf("splice from the socket: %d bytes: %w", n, orShort(err)))
		}
		moved += n
		if m, err := sys.Splice(r, d, n); err != nil || m != n {
			return failed(name, fmt.Errorf("splice to the socket: %d of %d bytes: %w", m, n, orShort(err)))
		}
	}
	if _, err := f.WriteAt(after(), 0); err != nil {
		return failed(name, missing(err))
	}
	got := make([]byte, chunk)
	if err := readFull(e, got); err != nil {
		return unknown(name, err.Error())
	}
	result := judge(name, got)
	if result.Answer == No {
		// Was it the splice? Without one between them the page must be shared.
		if direct := sendfilePages(); direct.Answer != Yes {
			return unknown(name, "sendfile(2), which was to provide the page: "+direct.Reason)
		}
	}
	return result
}

// userPages moves a page of this process to a TCP socket with vmsplice(2).
func userPages() Capability {
	const name = "pages-shared.user-to-tcp"
	var c closers
	defer c.close()
	a, b, err := newPair(&c, syscall.AF_INET)
	if err != nil {
		return failed(name, err)
	}
	r, w, err := newPipe(&c)
	if err != nil {
		return failed(name, err)
	}
	// Not of Go's heap: the kernel may hold the page longer than Go does.
	mem, err := syscall.Mmap(-1, 0, chunk, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return failed(name, missing(fmt.Errorf("mmap: %w", err)))
	}
	c.add(func() { _ = syscall.Munmap(mem) })
	copy(mem, before())
	if n, err := sys.Vmsplice(w, mem); err != nil || n != chunk {
		return failed(name, fmt.Errorf("vmsplice: %d bytes: %w", n, orShort(err)))
	}
	if n, err := sys.Splice(r, a, chunk); err != nil || n != chunk {
		return failed(name, fmt.Errorf("splice to the socket: %d bytes: %w", n, orShort(err)))
	}
	copy(mem, after())
	got := make([]byte, chunk)
	if err := readFull(b, got); err != nil {
		return unknown(name, err.Error())
	}
	return judge(name, got)
}

// copyRange copies within the kernel from one file to another.
func copyRange(kinds, from, to string) Capability {
	name := "copy-file-range." + kinds
	var c closers
	defer c.close()
	src, err := tempFile(&c, from, before())
	if err != nil {
		return failed(name, err)
	}
	dst, err := tempFile(&c, to, nil)
	if err != nil {
		return failed(name, err)
	}
	n, err := sys.CopyFileRange(int(src.Fd()), int(dst.Fd()), chunk)
	if err != nil {
		return failed(name, fmt.Errorf("copy_file_range: %w", err))
	}
	got := make([]byte, n)
	if _, err := dst.ReadAt(got, 0); err != nil {
		return unknown(name, err.Error())
	}
	if n == 0 || !bytes.Equal(got, before()[:n]) {
		return no(name, fmt.Sprintf("copy_file_range: %d bytes, but not those of the source", n))
	}
	return yes(name, fmt.Sprintf("copied %d bytes", n))
}

// orShort names the error of a call that did less than it should without one.
func orShort(err error) error {
	if err == nil {
		return errShort
	}
	return err
}
