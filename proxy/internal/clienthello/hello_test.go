package clienthello

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorded returns what crypto/tls says first with that configuration.
func recorded(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	var c scripted
	if err := tls.Client(&c, config).Handshake(); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	return c.wrote.Bytes()
}

// scripted is a connection whose peer sends what is in read and no more.
type scripted struct {
	read  bytes.Reader
	wrote bytes.Buffer
}

func (c *scripted) Read(b []byte) (int, error)       { return c.read.Read(b) }
func (c *scripted) Write(b []byte) (int, error)      { return c.wrote.Write(b) }
func (c *scripted) Close() error                     { return nil }
func (c *scripted) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *scripted) SetDeadline(time.Time) error      { return nil }
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return nil }

// The builders of a ClientHello that no library makes.
func extension(id uint16, body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, id), vector16(body)...)
}

func vector16(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func nameExtension(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(append(list, 0), vector16([]byte(n))...)
	}
	return extension(serverName, vector16(list))
}

func message(extensions ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0)
	if extensions != nil {
		body = append(body, vector16(slices.Concat(extensions...))...)
	}
	return append([]byte{1, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

// records cuts a message into records of at most size bytes.
func records(message []byte, size int) (b []byte) {
	for part := range slices.Chunk(message, size) {
		b = append(append(b, 22, 3, 1), vector16(part)...)
	}
	return b
}

func hello(extensions ...[]byte) []byte { return records(message(extensions...), maxRecord) }

func TestParse(t *testing.T) {
	t.Parallel()
	patched := func(b []byte, at int, v byte) []byte {
		b = slices.Clone(b)
		b[at] = v
		return b
	}
	plain := hello(nameExtension("a.example"))
	for name, tt := range map[string]struct {
		in     []byte
		want   Hello
		reason Reason
		detail string // of the error; empty for none
	}{
		"a name":          {in: plain, want: Hello{ServerName: "a.example", Versions: []uint16{0x0303}}},
		"upper case, dot": {in: hello(nameExtension("A.Example.")), want: Hello{ServerName: "a.example", Versions: []uint16{0x0303}}},
		"no extensions":   {in: hello(), want: Hello{Versions: []uint16{0x0303}}},
		"no name":         {in: hello(extension(23, nil)), want: Hello{Versions: []uint16{0x0303}}},
		"bytes after it":  {in: append(slices.Clone(plain), 99, 98), want: Hello{ServerName: "a.example", Versions: []uint16{0x0303}}},
		"another message in the record": {
			in:   records(append(message(nameExtension("a.example")), 99, 0, 0, 0), maxRecord),
			want: Hello{ServerName: "a.example", Versions: []uint16{0x0303}},
		},
		"records of 10 bytes": {in: records(message(nameExtension("a.example")), 10), want: Hello{ServerName: "a.example", Versions: []uint16{0x0303}}},
		"versions and protocols": {
			in: hello(extension(supportedVersions, []byte{8, 0x1a, 0x1a, 3, 4, 3, 3, 0x7f, 0x1c}),
				extension(alpn, vector16([]byte("\x02h2\x08http/1.1")))),
			want: Hello{ALPN: []string{"h2", "http/1.1"}, Versions: []uint16{0x0304, 0x0303, 0x7f1c}},
		},
		"encrypted": {
			in:   hello(nameExtension("front.example"), extension(encryptedHello, []byte{0})),
			want: Hello{ServerName: "front.example", Versions: []uint16{0x0303}, Encrypted: true},
		},
		"a name of a type unknown": {
			in:   hello(extension(serverName, vector16([]byte("\x07\x00\x01x\x00\x00\x01a")))),
			want: Hello{ServerName: "a", Versions: []uint16{0x0303}},
		},

		"HTTP":                    {in: []byte("GET / HTTP/1.1\r\n"), reason: NotTLS, detail: "no handshake record"},
		"SSH":                     {in: []byte("S"), reason: NotTLS, detail: "no handshake record"},
		"SSL 2":                   {in: []byte{0x80, 0x2e, 1, 3, 1}, reason: NotTLS, detail: "no handshake record"},
		"an alert":                {in: []byte{21, 3, 1, 0, 2, 2, 40}, reason: NotTLS, detail: "no handshake record"},
		"a version of 2":          {in: []byte{22, 2}, reason: NotTLS, detail: "the version of a record is not that of TLS"},
		"a ServerHello":           {in: []byte{22, 3, 3, 0, 4, 2}, reason: Malformed, detail: "the first message is another one"},
		"an empty record":         {in: []byte{22, 3, 1, 0, 0}, reason: Malformed, detail: "a record is empty"},
		"a long record":           {in: []byte{22, 3, 1, 0x40, 1}, reason: Malformed, detail: "a record is longer than 16 KiB"},
		"an alert in between":     {in: append(records(message(), 10)[:15], 21), reason: Malformed, detail: "no handshake record"},
		"a long message":          {in: []byte{22, 3, 1, 0x40, 0, 1, 0, 0x40, 0}, reason: TooLarge, detail: "the message is longer than 16 KiB"},
		"records of 1 byte":       {in: records(message(nameExtension("a.example")), 1), reason: TooLarge, detail: "it is spread over too many records"},
		"odd cipher suites":       {in: patched(plain, 5+4+2+32+1+1, 1), reason: Malformed, detail: "cipher suites"},
		"no compression":          {in: patched(plain, 5+4+2+32+1+4, 0), reason: Malformed, detail: "compression methods"},
		"cut in the random":       {in: records([]byte{1, 0, 0, 3, 3, 3, 0}, 99), reason: Malformed, detail: "cipher suites"},
		"extensions too short":    {in: patched(plain, 5+4+2+32+1+4+2+1, 5), reason: Malformed, detail: "the length of the extensions"},
		"half an extension":       {in: hello([]byte{0}), reason: Malformed, detail: "an extension's length"},
		"an extension too long":   {in: hello([]byte{0, 9, 0, 9}), reason: Malformed, detail: "an extension's length"},
		"an extension twice":      {in: hello(extension(23, nil), extension(23, nil)), reason: Malformed, detail: "an extension that comes twice"},
		"two names":               {in: hello(nameExtension("a", "b")), reason: Malformed, detail: "a second server name"},
		"an empty name":           {in: hello(nameExtension("")), reason: Malformed, detail: "the list of server names"},
		"no name in the list":     {in: hello(nameExtension()), reason: Malformed, detail: "the list of server names"},
		"a name with a zero":      {in: hello(nameExtension("a\x00.example")), reason: Malformed, detail: "a server name that is no host name"},
		"a name with a space":     {in: hello(nameExtension("a example")), reason: Malformed, detail: "a server name that is no host name"},
		"a dot":                   {in: hello(nameExtension(".")), reason: Malformed, detail: "a server name that is no host name"},
		"a name of 254":           {in: hello(nameExtension(strings.Repeat("a", 254))), reason: Malformed, detail: "a server name that is no host name"},
		"bytes after the names":   {in: hello(extension(serverName, []byte("\x00\x04\x00\x00\x01ax"))), reason: Malformed, detail: "the list of server names"},
		"an empty protocol":       {in: hello(extension(alpn, []byte{0, 1, 0})), reason: Malformed, detail: "the list of protocols"},
		"no protocol":             {in: hello(extension(alpn, []byte{0, 0})), reason: Malformed, detail: "the list of protocols"},
		"half a version":          {in: hello(extension(supportedVersions, []byte{1, 3})), reason: Malformed, detail: "the list of versions"},
		"a list of versions only": {in: hello(extension(supportedVersions, nil)), reason: Malformed, detail: "the list of versions"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, need, err := Parse(tt.in)
			if need != 0 {
				t.Fatalf("it wants %d bytes and has %d", need, len(tt.in))
			}
			var e *Error
			switch {
			case tt.detail == "" && err != nil:
				t.Fatal(err)
			case tt.detail != "" && (!errors.As(err, &e) || *e != Error{tt.reason, tt.detail}):
				t.Fatalf("error %v, want %v", err, &Error{tt.reason, tt.detail})
			}
			if !same(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func same(a, b Hello) bool {
	return a.ServerName == b.ServerName && a.Encrypted == b.Encrypted && slices.Equal(a.ALPN, b.ALPN) && slices.Equal(a.Versions, b.Versions)
}

// Whatever comes first is not enough, and says how much would be: a message
// that arrives byte by byte is looked at a few times only.
func TestParsePrefixes(t *testing.T) {
	t.Parallel()
	recording := recorded(t, &tls.Config{ServerName: "prefix.example", NextProtos: []string{"h2"}})
	for name, tt := range map[string]struct {
		b     []byte
		looks int
	}{
		"one record":    {recording, 3},
		"eight records": {records(message(nameExtension("prefix.example")), 10), 2 * 8},
		"30 records":    {records(message(nameExtension("prefix.example")), 3), 2 * 30},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := range tt.b {
				if h, need, err := Parse(tt.b[:n]); err != nil || need <= n || need > len(tt.b) {
					t.Fatalf("with %d of %d bytes: %+v, need %d, %v", n, len(tt.b), h, need, err)
				}
			}
			looks := 0
			for have, need := 0, 0; ; have = need {
				looks++
				h, n, err := Parse(tt.b[:have])
				if err != nil {
					t.Fatal(err)
				}
				if need = n; need == 0 {
					if h.ServerName != "prefix.example" {
						t.Errorf("server name %q", h.ServerName)
					}
					break
				}
			}
			if looks > tt.looks+1 {
				t.Errorf("%d looks, want at most %d", looks, tt.looks+1)
			}
		})
	}
}

func TestParseLimits(t *testing.T) {
	t.Parallel()
	// The longest message that is taken, in the most records.
	m := message(extension(21, make([]byte, MaxMessage-len(message(extension(21, nil))))))
	if len(m) != MaxMessage {
		t.Fatalf("the message has %d bytes", len(m))
	}
	b := records(m, MaxMessage/MaxRecords)
	if len(b) != MaxBytes {
		t.Errorf("it takes %d bytes on the wire, want MaxBytes = %d", len(b), MaxBytes)
	}
	if _, need, err := Parse(b); need != 0 || err != nil {
		t.Errorf("need %d, error %v", need, err)
	}
}

// What crypto/tls sends as a client, and what it understands as a server, is
// what is read here.
func TestParseAgreesWithGo(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]*tls.Config{
		"modern":  {ServerName: "go.example", NextProtos: []string{"h2", "http/1.1"}},
		"TLS 1.2": {ServerName: "go.example", MaxVersion: tls.VersionTLS12},
		"no name": {InsecureSkipVerify: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := recorded(t, config)
			got, need, err := Parse(b)
			if need != 0 || err != nil {
				t.Fatalf("need %d, error %v", need, err)
			}
			want, ok := understood(b)
			if !ok {
				t.Fatal("crypto/tls does not understand itself")
			}
			if !agrees(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// understood is how crypto/tls reads a ClientHello.
func understood(b []byte) (info tls.ClientHelloInfo, ok bool) {
	var c scripted
	c.read.Reset(b)
	_ = tls.Server(&c, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		info, ok = *i, true
		return nil, errors.New("seen")
	}}).Handshake()
	return info, ok
}

func agrees(h Hello, info tls.ClientHelloInfo) bool {
	return h.ServerName == strings.ToLower(info.ServerName) && slices.Equal(h.ALPN, info.SupportedProtos)
}

func FuzzParse(f *testing.F) {
	f.Add(recorded(f, &tls.Config{ServerName: "go.example", NextProtos: []string{"h2", "http/1.1"}}))
	f.Add(recorded(f, &tls.Config{ServerName: "go.example", MaxVersion: tls.VersionTLS12}))
	f.Add(hello(nameExtension("a.example"), extension(alpn, vector16([]byte("\x02h2"))), extension(supportedVersions, []byte{2, 3, 4})))
	f.Add(records(message(nameExtension("a.example")), 10))
	f.Add(hello(nameExtension("a", "b")))
	f.Add([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x40, 0})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, need, err := Parse(b)
		switch {
		case need != 0 && (need <= len(b) || need > MaxBytes || err != nil):
			t.Fatalf("need %d of %d, error %v", need, len(b), err)
		case need != 0 || err != nil:
			if !same(h, Hello{}) {
				t.Fatalf("no verdict, and %+v", h)
			}
			return
		}
		// More bytes change nothing, and fewer are not enough or enough.
		if again, need, err := Parse(append(slices.Clone(b), b...)); need != 0 || err != nil || !same(again, h) {
			t.Fatalf("with more behind it: %+v, need %d, error %v; was %+v", again, need, err, h)
		}
		for n := 0; n < len(b); n += 1 + len(b)/64 {
			if again, need, err := Parse(b[:n]); err != nil || need == 0 && !same(again, h) {
				t.Fatalf("with %d bytes: %+v, need %d, error %v; was %+v", n, again, need, err, h)
			}
		}
		if info, ok := understood(b); ok && !agrees(h, info) {
			t.Fatalf("got %+v, crypto/tls %q %q", h, info.ServerName, info.SupportedProtos)
		}
	})
}
