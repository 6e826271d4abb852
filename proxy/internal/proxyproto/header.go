// Package proxyproto reads and writes the PROXY protocol, versions 1 and 2
// (HAProxy's doc/proxy-protocol.txt): who the client of a proxy is, said before
// the first byte of the stream. It does no input or output: [Parse] says how
// many bytes the header has, so that whoever reads takes those and no more.
package proxyproto

import (
	"errors"
	"net/netip"
)

const (
	// MaxBytes bounds a header. Version 1 has at most 107 bytes; version 2 may
	// carry a client's certificate.
	MaxBytes = 16 << 10

	maxV1    = 107
	fixedV2  = 16 // signature, command, family, length
	maxBlock = MaxBytes - fixedV2
)

// A Header says who has connected to whom.
type Header struct {
	Version int // 1 or 2
	// Local: the proxy speaks for itself, a health check for instance. The
	// connection's own addresses hold, and there is nothing else in the header.
	Local bool
	// Source and Destination are the client's address and the one that it
	// connected to. Both are invalid if they are unknown (UNKNOWN, UNSPEC) or
	// those of unix sockets: then the connection's own hold too.
	Source, Destination netip.AddrPort
	// SourcePath and DestinationPath are those of unix sockets (version 2). An
	// abstract name begins with a zero byte, as in the header: one that begins with @
	// is the path of a file here.
	SourcePath, DestinationPath string
	// TLVs are what else version 2 has to say, in the order of the header. The
	// checksum, which [Parse] has verified, and fillers are left out.
	TLVs []TLV
}

// A TLV is a value with its type.
type TLV struct {
	Type  byte
	Value []byte
}

// The types of values in section 2.2 of the specification, with those inside
// [TypeSSL]. 0xE0 to 0xEF are for everybody's own use.
const (
	TypeALPN      = 0x01 // of the TLS session that the proxy has ended
	TypeAuthority = 0x02 // the host name that the client asked for (SNI)
	typeCRC32C    = 0x03
	typeNoop      = 0x04
	TypeUniqueID  = 0x05 // at most 128 bytes
	TypeSSL       = 0x20
	TypeNetNS     = 0x30

	TypeSSLVersion = 0x21
	TypeSSLCN      = 0x22
	TypeSSLCipher  = 0x23
	TypeSSLSigAlg  = 0x24
	TypeSSLKeyAlg  = 0x25
)

// Value returns the first value of that type.
func (h *Header) Value(kind byte) ([]byte, bool) {
	for _, v := range h.TLVs {
		if v.Type == kind {
			return v.Value, true
		}
	}
	return nil, false
}

// An Error says what is wrong with a header. No further byte would mend it.
type Error struct{ Detail string }

func (e *Error) Error() string { return "PROXY header: " + e.Detail }

// ErrWrong is matched by each [Error].
var ErrWrong = errors.New("a PROXY header is wrong")

// Is is for [errors.Is].
func (e *Error) Is(target error) bool { return target == ErrWrong }

func wrong(what string) error { return &Error{what} }
