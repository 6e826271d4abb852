// Package clienthello reads what a TLS client says first, for a proxy that only
// looks at it: the bytes stay where they are, and the server gets them as they
// came. It keeps to RFC 8446 (TLS 1.3) sections 4.1.2, 4.2 and 5.1, to RFC 6066
// section 3 (server_name) and to RFC 7301 (ALPN).
package clienthello

import (
	"slices"
	"strings"
)

const (
	// MaxMessage bounds a ClientHello, in bytes. With a post-quantum key share
	// and a session ticket one has about 2 KiB.
	MaxMessage = 16 << 10
	// MaxRecords bounds the records that it is spread over: clients that split
	// theirs make two or three.
	MaxRecords = 32
	// MaxBytes is what a ClientHello within these limits takes at most on the
	// wire, so more need never be looked at.
	MaxBytes = MaxMessage + MaxRecords*recordHeader

	recordHeader  = 5       // content type, version, length
	messageHeader = 4       // message type, length
	maxRecord     = 1 << 14 // RFC 8446 section 5.1
	maxName       = 253     // characters of a host name
)

// A Hello is what a ClientHello says of where the client wants to go.
type Hello struct {
	// ServerName is in lower case and without a final dot; empty if the client
	// named nobody. It has letters, digits, and the characters - . and _ only.
	ServerName string
	// ALPN lists the protocols that the client offers, best first.
	ALPN []string
	// Versions lists the TLS versions that it offers, best first, as on the wire
	// (0x0304 is TLS 1.3) and without reserved values (RFC 8701).
	Versions []uint16
	// Encrypted: the name above is that of a front, the real one is encrypted
	// for it (the extension encrypted_client_hello).
	Encrypted bool
}

// Parse reads the ClientHello at the beginning of b. With need > 0 b is too
// short: no verdict is possible before there are that many bytes, [MaxBytes] at
// most. An error is an [*Error], and no further byte would change it.
func Parse(b []byte) (h Hello, need int, err error) {
	message, need, err := unwrap(b)
	if need > 0 || err != nil {
		return Hello{}, need, err
	}
	if h, err = parse(message); err != nil {
		return Hello{}, 0, err
	}
	return h, 0, nil
}

// unwrap returns the body of the handshake message that begins b. It copies
// only a message that is spread over records.
func unwrap(b []byte) (body []byte, need int, err error) {
	var message []byte // what there is of it
	for at, record := 0, 1; record <= MaxRecords; record++ {
		content, need, err := fragment(b, at, record)
		if err != nil {
			return nil, 0, err
		}
		if record == 1 {
			message = content
		} else {
			message = append(message[:len(message):len(message)], content...)
		}
		size, err := length(message)
		switch {
		case err != nil:
			return nil, 0, err
		case size > 0 && len(message) >= size:
			return message[messageHeader:size], 0, nil
		case need > 0:
			return nil, need, nil
		}
		at += recordHeader + len(content)
	}
	return nil, 0, &Error{TooLarge, "it is spread over too many records"}
}

// length returns how long the message is, its header included; 0 if too little
// of it is there to know.
func length(message []byte) (int, error) {
	if len(message) > 0 && message[0] != 1 {
		return 0, malformed("the first message is another one")
	}
	if len(message) < messageHeader {
		return 0, nil
	}
	size := messageHeader + int(message[1])<<16 + int(message[2])<<8 + int(message[3])
	if size > MaxMessage {
		return 0, &Error{TooLarge, "the message is longer than 16 KiB"}
	}
	return size, nil
}

// fragment returns what there is of the content of the record at b[at:]. With
// need > 0 that is not all, and b must be that long for it.
func fragment(b []byte, at, record int) (content []byte, need int, err error) {
	if err := check(b[at:], record); err != nil {
		return nil, 0, err
	}
	if len(b) < at+recordHeader {
		return nil, at + recordHeader, nil
	}
	size := int(b[at+3])<<8 | int(b[at+4])
	switch {
	case size == 0:
		return nil, 0, malformed("a record is empty")
	case size > maxRecord:
		return nil, 0, malformed("a record is longer than 16 KiB")
	}
	if content = b[at+recordHeader:]; len(content) < size {
		return content, at + recordHeader + size, nil
	}
	return content[:size], 0, nil
}

// check looks at what there is of a record's type and version.
func check(header []byte, record int) error {
	kind := NotTLS
	if record > 1 {
		kind = Malformed
	}
	if len(header) > 0 && header[0] != 22 {
		return &Error{kind, "no handshake record"}
	}
	if len(header) > 1 && header[1] != 3 {
		return &Error{kind, "the version of a record is not that of TLS"}
	}
	return nil
}

// parse reads the body of a ClientHello.
func parse(message []byte) (h Hello, err error) {
	b := reader{rest: message}
	legacy := b.uint16()
	b.bytes(32) // random
	b.vector8() // session ID
	if suites := b.vector16(); len(suites) < 2 || len(suites)%2 != 0 {
		return h, malformed("cipher suites")
	}
	if methods := b.vector8(); len(methods) == 0 {
		return h, malformed("compression methods")
	}
	if b.failed() {
		return h, malformed("the fields before the extensions")
	}
	h.Versions = []uint16{legacy}
	if b.empty() {
		return h, nil // RFC 5246 section 7.4.1.2: extensions may be left out
	}
	extensions := b.within16()
	if extensions.failed() {
		return h, malformed("the length of the extensions")
	}
	var seen []uint16
	for !extensions.empty() {
		id, body := extensions.uint16(), extensions.vector16()
		if extensions.failed() {
			return h, malformed("an extension's length")
		}
		// RFC 8446 section 4.2: not more than one of a type.
		if slices.Contains(seen, id) {
			return h, malformed("an extension that comes twice")
		}
		if seen = append(seen, id); len(seen) > maxExtensions {
			return h, &Error{TooLarge, "it has too many extensions"}
		}
		if err := h.extension(id, reader{rest: body}); err != nil {
			return h, err
		}
	}
	return h, nil
}

// maxExtensions bounds the search for one that comes twice. Clients send up to
// 20.
const maxExtensions = 256

// The extensions that say where to go.
const (
	serverName        = 0
	alpn              = 16
	supportedVersions = 43
	encryptedHello    = 0xfe0d
)

func (h *Hello) extension(id uint16, b reader) (err error) {
	switch id {
	case serverName:
		h.ServerName, err = name(b)
	case alpn:
		list := b.within16()
		if list.failed() || list.empty() {
			return malformed("the list of protocols")
		}
		for !list.empty() {
			protocol := list.vector8()
			if list.failed() || len(protocol) == 0 {
				return malformed("the list of protocols")
			}
			h.ALPN = append(h.ALPN, string(protocol))
		}
	case supportedVersions:
		list := b.within8()
		if list.failed() || list.empty() || len(list.rest)%2 != 0 {
			return malformed("the list of versions")
		}
		h.Versions = nil
		for !list.empty() {
			if v := list.uint16(); !reserved(v) {
				h.Versions = append(h.Versions, v)
			}
		}
	case encryptedHello:
		h.Encrypted = true
	}
	return err
}

// reserved says whether v is there to keep servers used to unknown values.
func reserved(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// name reads the extension server_name: a list, of which each type of name may
// come once, and of which only host names were ever defined.
func name(b reader) (string, error) {
	list := b.within16()
	if list.failed() || list.empty() {
		return "", malformed("the list of server names")
	}
	host := ""
	for !list.empty() {
		kind, value := list.uint8(), list.vector16()
		if list.failed() || len(value) == 0 {
			return "", malformed("the list of server names")
		}
		if kind != 0 {
			continue
		}
		if host != "" {
			return "", malformed("a second server name")
		}
		host = strings.ToLower(strings.TrimSuffix(string(value), "."))
		if !valid(host) {
			return "", malformed("a server name that is no host name")
		}
	}
	return host, nil
}

func valid(host string) bool {
	if host == "" || len(host) > maxName {
		return false
	}
	for _, c := range []byte(host) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == ':': // : in an IPv6 address
		default:
			return false
		}
	}
	return true
}
