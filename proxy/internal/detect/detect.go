// Package detect tells a protocol by what a client says first, without reading
// more than it takes.
package detect

import (
	"encoding/binary"
	"fmt"
)

// A Protocol is what a client seems to speak.
type Protocol uint8

// The protocols.
const (
	// Plain is everything else.
	Plain Protocol = iota
	// TLS begins with a handshake record (RFC 8446 section 5.1).
	TLS
	// SSH begins with "SSH-" (RFC 4253 section 4.2). Its clients don't wait for
	// the server's banner, though the server's often comes first.
	SSH
	// HTTP is a request line of HTTP/1, or the preface of HTTP/2 (RFC 9113
	// section 3.4).
	HTTP
	// PostgreSQL begins with a startup packet without encryption; a request to
	// cancel counts too.
	PostgreSQL
	// PostgreSQLTLS asks for encryption first (SSLRequest or GSSENCRequest): the
	// TLS handshake comes only after the server's answer, so there is no server
	// name to route by.
	PostgreSQLTLS
	// Silent is a client that waits for the server to speak first, as those of
	// MySQL, SMTP and FTP do: it has said nothing when the time was over.
	Silent
)

var names = [...]string{"plain", "tls", "ssh", "http", "postgresql", "postgresql-tls", "silent"}

func (p Protocol) String() string {
	if int(p) < len(names) {
		return names[p]
	}
	return fmt.Sprintf("protocol(%d)", uint8(p))
}

// Names lists the protocols.
func Names() []string { return names[:] }

// Parse is the inverse of String.
func Parse(name string) (Protocol, error) {
	for i, n := range names {
		if n == name {
			return Protocol(i), nil
		}
	}
	return 0, fmt.Errorf("unknown protocol %q: want one of %v", name, names)
}

// MaxBytes is more than Detect ever needs.
const MaxBytes = 16

// Detect tells the protocol of a client that has sent b so far. With need > 0 it
// can't be told before there are that many bytes: at the latest when no more
// are waited for, [AtLast] says what it is.
func Detect(b []byte) (p Protocol, need int) {
	for _, f := range [...]func([]byte) (Protocol, int){tls, ssh, postgreSQL, http} {
		switch q, n := f(b); {
		case n > 0 && (need == 0 || n < need):
			need = n
		case n == 0 && q != Plain:
			return q, 0
		}
	}
	return Plain, need
}

// AtLast tells the protocol of a client that has sent b and no more within the
// time that it was given. One that has begun something goes on in its own time:
// b is not a whole word of any protocol known here.
func AtLast(b []byte) Protocol {
	if len(b) == 0 {
		return Silent
	}
	p, _ := Detect(b)
	return p
}

// Each of these tells one protocol from [Plain], or how many bytes it would take.

// tls wants the header of a record and the type of its message, a ClientHello.
func tls(b []byte) (Protocol, int) {
	const most = 6
	for i, c := range b[:min(len(b), most)] {
		switch i {
		case 0:
			if c != 22 {
				return Plain, 0
			}
		case 1:
			if c != 3 {
				return Plain, 0
			}
		case 2:
			if c > 4 {
				return Plain, 0
			}
		case 5:
			if c != 1 {
				return Plain, 0
			}
		}
	}
	if len(b) < most {
		return Plain, most
	}
	return TLS, 0
}

func ssh(b []byte) (Protocol, int) { return begins(b, "SSH-", SSH) }

// methods are those of RFC 9110 section 9.3 and RFC 5789, and the first word of
// HTTP/2.
var methods = [...]string{
	"GET ", "POST ", "HEAD ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE ", "PRI * HTTP/2.0",
}

func http(b []byte) (p Protocol, need int) {
	for _, method := range methods {
		switch q, n := begins(b, method, HTTP); {
		case q == HTTP:
			return HTTP, 0
		case n > 0 && (need == 0 || n < need):
			need = n
		}
	}
	return Plain, need
}

// begins says whether b begins with the word, which may be on its way.
func begins(b []byte, word string, p Protocol) (Protocol, int) {
	if n := min(len(b), len(word)); string(b[:n]) != word[:n] {
		return Plain, 0
	}
	if len(b) < len(word) {
		return Plain, len(word)
	}
	return p, 0
}

// The codes of PostgreSQL's first packet: "Message Formats" in its manual, and
// pqcomm.h.
const (
	cancelCode = 1234<<16 | 5678
	sslCode    = 1234<<16 | 5679
	gssCode    = 1234<<16 | 5680

	maxStartup = 10000 // MAX_STARTUP_PACKET_LENGTH
)

// postgreSQL wants the length of a packet and its code or version.
func postgreSQL(b []byte) (Protocol, int) {
	// The length is below 64 Ki.
	if len(b) > 0 && b[0] != 0 || len(b) > 1 && b[1] != 0 {
		return Plain, 0
	}
	if len(b) < 8 {
		return Plain, 8
	}
	size, code := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	switch {
	case size == 8 && (code == sslCode || code == gssCode):
		return PostgreSQLTLS, 0
	case size >= 16 && size <= 16+256 && code == cancelCode, // the key is longer since version 3.2
		size > 8 && size <= maxStartup && code>>16 == 3:
		return PostgreSQL, 0
	}
	return Plain, 0
}
