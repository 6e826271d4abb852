package ioengine

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/spliced-io/spliced/internal/fio/job"
)

// What a unit does.
const (
	Read = iota
	Write
	Trim
	Fsync
	Fdatasync
)

// A File is a target of a job.
type File struct {
	Name   string
	FD     int   // -1: not open
	Size   int64 // bytes that I/O may reach
	Device bool  // a block device
	Direct bool
	Write  bool // opened for writing
	Advice int  // of sys.Advise...: random, sequential or neither

	pos    int64  // engine sync: where the file's own offset is
	mapped []byte // engine mmap
}

// A Unit is one I/O. The caller sets the fields up to Len, the engine N and
// Err.
type Unit struct {
	Buf    []byte // the whole buffer, from New's Buffers
	Dir    int
	File   *File
	Offset int64 // of the next byte
	At     int   // where in Buf that byte goes
	Len    int   // bytes to move from there
	N      int   // bytes moved
	Err    error
	Last   bool // no more data follows on a socket
	Index  int

	// The caller's own.
	Start, Issue int64
	Seed         uint64
	Number       uint64
	Block        int64 // offset of the block's first byte
	Size         int   // of the whole block
	Tag          int
	Busy         bool
}

func (u *Unit) ptr() unsafe.Pointer { return unsafe.Pointer(&u.Buf[u.At]) }

// An Engine moves the bytes.
type Engine interface {
	// Open prepares for a file, or opens a connection.
	Open(f *File) error
	Close(f *File) error
	// Do makes an I/O and waits for its end.
	Do(u *Unit)
	// Shutdown frees everything, Buffers included.
	Shutdown()
}

// An Async engine can have several units on the way.
type Async interface {
	Engine
	// Queue takes a unit. False: it has no room, Commit and Wait first.
	Queue(u *Unit) bool
	// Commit hands all queued units to the kernel.
	Commit() error
	// Wait appends finished units: at least as many as said (0: those that
	// are there), and no more than most.
	Wait(least, most int, done []*Unit) ([]*Unit, error)
}

// Evidence says what is known about a splice-family engine's copies.
type Evidence struct {
	Path     string // what moves where
	Shared   string // "shared", "copied" or "unknown: why": the pages of a read
	Source   string // the same for pages that user space passes in
	ToUser   string // how bytes reach the job's buffer
	PipeSize int    // bytes granted, 0: no pipe
	Note     string
}

// Witnessed engines have evidence.
type Witnessed interface{ Evidence() *Evidence }

// Config is what an engine needs to know.
type Config struct {
	Options *job.Options
	Depth   int
	Block   int          // largest block, bytes
	Align   int          // of each buffer
	Dir     string       // where temporary files may be made
	Stop    *atomic.Bool // the job is to end: no engine waits for ever
	Late    func() bool  // the job's runtime is over: what waits for a peer gives up
}

// Traits of an engine, by name.
type Traits struct {
	Async    bool // iodepth above 1 works
	Diskless bool // no file is opened or made
	Network  bool // one connection, one direction
	Bits     bool // rates are shown in bits
	Memory   bool // brings its own buffers: engine implements Buffers
	Mapped   bool // a file has its whole size before it is written to
}

// Buffers are an engine's own buffers.
type Buffers interface{ Buffers() ([][]byte, error) }

// Names lists the engines.
func Names() []string {
	return []string{
		"sync", "psync", "pvsync", "mmap", "null", "splice", "sendfile",
		"copy_file_range", "net", "netsplice", "io_uring", "libaio", "posixaio",
	}
}

// TraitsOf describes an engine. False: there is none of this name.
func TraitsOf(name string) (Traits, bool) {
	switch name {
	case "sync", "psync", "pvsync", "splice":
		return Traits{}, true
	case "mmap":
		return Traits{Mapped: true}, true
	case "null":
		return Traits{Async: true, Diskless: true}, true
	case "sendfile", "copy_file_range":
		return Traits{Memory: true}, true
	case "net", "netsplice":
		return Traits{Diskless: true, Network: true, Bits: true}, true
	case "io_uring", "libaio", "posixaio":
		return Traits{Async: true}, true
	}
	return Traits{}, false
}

// New makes an engine.
func New(name string, c Config) (Engine, error) {
	switch name {
	case "sync":
		return &syncEngine{}, nil
	case "psync":
		return &psyncEngine{}, nil
	case "pvsync":
		return &pvsyncEngine{}, nil
	case "mmap":
		return &mmapEngine{}, nil
	case "null":
		return &nullEngine{}, nil
	case "splice":
		return newSplice(c)
	case "sendfile":
		return newSendfile(c)
	case "copy_file_range":
		return newCopyRange(c)
	case "net", "netsplice":
		return newNet(c, name == "netsplice")
	case "io_uring":
		return newUring(c)
	case "libaio":
		return newAIO(c)
	case "posixaio":
		return NewPool(c, func() (Engine, error) { return &psyncEngine{}, nil })
	}
	return nil, fmt.Errorf("ioengine=%s: spliced fio has %s", name, strings.Join(Names(), ", "))
}

// Help describes an engine's options for --enghelp.
func Help(name string) (string, bool) {
	t, ok := TraitsOf(name)
	switch {
	case !ok:
		return "", false
	case t.Network:
		return "hostname port protocol(tcp, tcpv6, unix) listen nodelay pingpong interface window_size mss\n", true
	case name == "sendfile":
		return "hostname port protocol: send the file there instead of into the job's buffers\n", true
	}
	return "no options\n", true
}

// tick is how long an engine may wait before it looks whether to stop.
const tick = 100 * time.Millisecond
