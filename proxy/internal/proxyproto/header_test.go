package proxyproto

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

const (
	four = "\x0a\x00\x00\x01\x0a\x00\x00\x02\x30\x39\x01\xbb" // 10.0.0.1:12345 to 10.0.0.2:443
	six  = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x30\x39\x01\xbb"
)

// v2 makes a header of version 2.
func v2(command, family byte, block string) string {
	return signature + string([]byte{command, family, byte(len(block) >> 8), byte(len(block))}) + block
}

func from4() Header {
	return Header{Version: 2, Source: netip.MustParseAddrPort("10.0.0.1:12345"), Destination: netip.MustParseAddrPort("10.0.0.2:443")}
}

func from6(version int) Header {
	return Header{Version: version, Source: netip.MustParseAddrPort("[2001:db8::1]:12345"), Destination: netip.MustParseAddrPort("[2001:db8::2]:443")}
}

func with(h Header, tlvs ...TLV) Header {
	h.TLVs = tlvs
	return h
}

func version1(h Header) Header {
	h.Version = 1
	return h
}

var cases = map[string]struct {
	in    string
	want  Header
	wrong string // what the error says; empty for none
}{
	"TCP4":              {in: "PROXY TCP4 10.0.0.1 10.0.0.2 12345 443\r\n", want: version1(from4())},
	"TCP6":              {in: "PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n", want: from6(1)},
	"TCP6, mapped":      {in: "PROXY TCP6 ::ffff:10.0.0.1 ::ffff:10.0.0.2 12345 443\r\n", want: version1(from4())},
	"UNKNOWN":           {in: "PROXY UNKNOWN\r\n", want: Header{Version: 1}},
	"UNKNOWN, the rest": {in: "PROXY UNKNOWN ffff::1 x  y\r\n", want: Header{Version: 1}},
	"the longest": {
		in:   "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
		want: Header{Version: 1},
	},
	"too long":            {in: "PROXY UNKNOWN " + strings.Repeat("x", 94), wrong: "more than 107 bytes"},
	"no CR":               {in: "PROXY UNKNOWN\n", wrong: "without CR"},
	"nothing":             {in: "PROXY \r\n", wrong: "TCP4, TCP6 or UNKNOWN"},
	"UDP4":                {in: "PROXY UDP4 10.0.0.1 10.0.0.2 12345 443\r\n", wrong: "TCP4, TCP6 or UNKNOWN"},
	"two spaces":          {in: "PROXY TCP4  10.0.0.1 10.0.0.2 12345 443\r\n", wrong: "one space"},
	"no ports":            {in: "PROXY TCP4 10.0.0.1 10.0.0.2\r\n", wrong: "one space"},
	"IPv6 in TCP4":        {in: "PROXY TCP4 ::1 10.0.0.2 12345 443\r\n", wrong: `"::1" is no address`},
	"IPv4 in TCP6":        {in: "PROXY TCP6 ::1 10.0.0.2 12345 443\r\n", wrong: `"10.0.0.2" is no address`},
	"a zone":              {in: "PROXY TCP6 fe80::1%lo fe80::2 12345 443\r\n", wrong: "is no address"},
	"leading zero":        {in: "PROXY TCP4 10.0.0.01 10.0.0.2 12345 443\r\n", wrong: "is no address"},
	"a port of 0443":      {in: "PROXY TCP4 10.0.0.1 10.0.0.2 12345 0443\r\n", wrong: `"0443" is no port`},
	"a port of 65536":     {in: "PROXY TCP4 10.0.0.1 10.0.0.2 65536 443\r\n", wrong: `"65536" is no port`},
	"lower case":          {in: "proxy TCP4", wrong: "there is none"},
	"HTTP":                {in: "G", wrong: "there is none"},
	"an empty line":       {in: "\r\n\r\nG", wrong: "there is none"},
	"a line begins early": {in: "PROXY\r\n", wrong: "there is none"},

	"v2, IPv4":         {in: v2(0x21, 0x11, four), want: from4()},
	"v2, IPv6":         {in: v2(0x21, 0x21, six), want: from6(2)},
	"v2, UDP":          {in: v2(0x21, 0x12, four), want: from4()},
	"v2, LOCAL":        {in: v2(0x20, 0x00, ""), want: Header{Version: 2, Local: true}},
	"v2, LOCAL, rest":  {in: v2(0x20, 0x11, "x"), want: Header{Version: 2, Local: true}},
	"v2, LOCAL, odd":   {in: v2(0x20, 0xff, "x"), want: Header{Version: 2, Local: true}},
	"v2, UNSPEC":       {in: v2(0x21, 0x00, ""), want: Header{Version: 2}},
	"v2, UNSPEC, rest": {in: v2(0x21, 0x00, "what is this"), want: Header{Version: 2}},
	"v2, unix": {
		in:   v2(0x21, 0x31, "/run/a"+strings.Repeat("\x00", 102)+"\x00b"+strings.Repeat("\x00", 106)),
		want: Header{Version: 2, SourcePath: "/run/a", DestinationPath: "\x00b"},
	},
	"v2, values": {
		in:   v2(0x21, 0x11, four+"\x02\x00\x03a.b"+"\x04\x00\x02xx"+"\xe0\x00\x00"+"\x02\x00\x01c"),
		want: with(from4(), TLV{TypeAuthority, []byte("a.b")}, TLV{0xe0, []byte{}}, TLV{TypeAuthority, []byte("c")}),
	},
	"v2, checksum": {in: v2(0x21, 0x11, four+"\x03\x00\x04\xca\x06\x9c\x31"), wrong: "the checksum"},
	"v2, a checksum of 3": {
		in: v2(0x21, 0x11, four+"\x03\x00\x03abc"), wrong: "not of 4 bytes",
	},
	"v2, version 3":        {in: v2(0x31, 0x11, four), wrong: "neither 1 nor 2"},
	"v2, command 2":        {in: v2(0x22, 0x11, four), wrong: "neither LOCAL nor PROXY"},
	"v2, family 4":         {in: v2(0x21, 0x41, four), wrong: "not defined"},
	"v2, protocol 3":       {in: v2(0x21, 0x13, four), wrong: "not defined"},
	"v2, IPv4 too short":   {in: v2(0x21, 0x11, four[1:]), wrong: "too short for its addresses"},
	"v2, IPv6 too short":   {in: v2(0x21, 0x21, four), wrong: "too short for its addresses"},
	"v2, unix too short":   {in: v2(0x21, 0x31, four), wrong: "too short for its addresses"},
	"v2, half a value":     {in: v2(0x21, 0x11, four+"\x02\x00"), wrong: "cut short"},
	"v2, a value too long": {in: v2(0x21, 0x11, four+"\x02\x00\x02a"), wrong: "cut short"},
	"v2, too long":         {in: signature + "\x21\x11\x40\x00", wrong: "longer than 16 KiB"},
}

func TestParse(t *testing.T) {
	t.Parallel()
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const behind = "\r\nthe stream"
			got, size, need, err := Parse([]byte(tt.in + behind))
			if need != 0 {
				t.Fatalf("need %d", need)
			}
			if tt.wrong != "" {
				var e *Error
				if !errors.As(err, &e) || !strings.Contains(e.Detail, tt.wrong) {
					t.Fatalf("error %v, want one with %q", err, tt.wrong)
				}
				return
			}
			if err != nil || size != len(tt.in) {
				t.Fatalf("size %d of %d, %v", size, len(tt.in), err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			// Fewer bytes are not enough, and say how many would be.
			for n := range len(tt.in) {
				if _, size, need, err := Parse([]byte(tt.in[:n])); err != nil || size != 0 || need <= n || need > len(tt.in) {
					t.Fatalf("with %d bytes: size %d, need %d, %v", n, size, need, err)
				}
			}
		})
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	mixed := from4()
	mixed.Destination = from6(2).Destination
	unix := Header{SourcePath: "/run/a", DestinationPath: "\x00b"}
	for name, tt := range map[string]struct {
		in   Header
		one  string
		want Header // as version 2 is read again
	}{
		"IPv4":    {from4(), "PROXY TCP4 10.0.0.1 10.0.0.2 12345 443\r\n", from4()},
		"IPv6":    {from6(2), "PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n", from6(2)},
		"mixed":   {mixed, "PROXY TCP6 ::ffff:10.0.0.1 2001:db8::2 12345 443\r\n", mixed},
		"local":   {Header{Local: true}, "PROXY UNKNOWN\r\n", Header{Local: true}},
		"unknown": {Header{}, "PROXY UNKNOWN\r\n", Header{}},
		"unix":    {unix, "PROXY UNKNOWN\r\n", unix},
		"values":  {with(from4(), TLV{TypeALPN, []byte("h2")}), "PROXY TCP4 10.0.0.1 10.0.0.2 12345 443\r\n", with(from4(), TLV{TypeALPN, []byte("h2")})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.in.Version = 1
			if b, err := Append([]byte("x"), &tt.in, true); err != nil || string(b) != "x"+tt.one {
				t.Errorf("version 1: %q, %v", b, err)
			}
			tt.in.Version, tt.want.Version = 2, 2
			for _, checksum := range []bool{false, true} {
				b, err := Append([]byte("x"), &tt.in, checksum)
				if err != nil {
					t.Fatal(err)
				}
				got, size, _, err := Parse(b[1:])
				if err != nil || size != len(b)-1 || !reflect.DeepEqual(got, tt.want) {
					t.Errorf("version 2, checksum %t: %+v, %d of %d bytes, %v", checksum, got, size, len(b)-1, err)
				}
			}
		})
	}
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]Header{
		"no version":    {},
		"a long path":   {Version: 2, SourcePath: strings.Repeat("a", 109)},
		"a long value":  with(from4(), TLV{0xe0, make([]byte, 1<<16)}),
		"too many":      with(from4(), TLV{0xe0, make([]byte, 9000)}, TLV{0xe0, make([]byte, 9000)}),
		"version three": {Version: 3},
	} {
		if b, err := Append(nil, &h, false); err == nil {
			t.Errorf("%s: %d bytes and no error", name, len(b))
		}
	}
}

// A flipped bit anywhere behind the fixed part is noticed.
func TestChecksum(t *testing.T) {
	t.Parallel()
	h := with(from4(), TLV{TypeAuthority, []byte("a.example")})
	b, err := Append(nil, &h, true)
	if err != nil {
		t.Fatal(err)
	}
	for i := fixedV2; i < len(b); i++ {
		b[i] ^= 1
		if got, _, need, err := Parse(b); err == nil && need == 0 && reflect.DeepEqual(got, h) {
			t.Errorf("byte %d: unnoticed", i)
		} else if err == nil && i < fixedV2+12 {
			t.Errorf("byte %d, of an address: unnoticed", i)
		}
		b[i] ^= 1
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range cases {
		f.Add([]byte(tt.in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, size, need, err := Parse(b)
		switch {
		case err != nil && (size != 0 || need != 0):
			t.Fatalf("size %d, need %d, %v", size, need, err)
		case err != nil:
			return
		case need != 0:
			if size != 0 || need <= len(b) || need > MaxBytes {
				t.Fatalf("size %d, need %d of %d", size, need, len(b))
			}
			return
		case size <= 0 || size > len(b) || size > MaxBytes:
			t.Fatalf("size %d of %d", size, len(b))
		}
		// What was read can be written, and is read as the same.
		again, err := Append(nil, &h, true)
		if err != nil {
			// A checksum makes the longest ones too long.
			if again, err = Append(nil, &h, false); err != nil {
				t.Fatalf("%+v can't be written: %v", h, err)
			}
		}
		got, size, need, err := Parse(again)
		if err != nil || need != 0 || size != len(again) || !reflect.DeepEqual(got, h) {
			t.Fatalf("%+v became %+v (%d of %d bytes, need %d, %v)", h, got, size, len(again), need, err)
		}
	})
}
