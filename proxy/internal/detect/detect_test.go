package detect

import (
	"bytes"
	"slices"
	"testing"
)

var cases = map[string]struct {
	in   string
	want Protocol
}{
	"ClientHello":                 {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", TLS},
	"a version to come":           {"\x16\x03\x05\x02\x00\x01", Plain},
	"a ServerHello":               {"\x16\x03\x03\x00\x7a\x02", Plain},
	"an alert":                    {"\x15\x03\x03\x00\x02\x02\x28", Plain},
	"SSH":                         {"SSH-2.0-OpenSSH_9.2\r\n", SSH},
	"SSH, lower case":             {"ssh-2.0", Plain},
	"GET":                         {"GET / HTTP/1.1\r\n", HTTP},
	"a method alone":              {"GETTING", Plain},
	"DELETE":                      {"DELETE /a", HTTP},
	"HTTP/2":                      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP},
	"PRINT":                       {"PRINT", Plain},
	"SSLRequest":                  {"\x00\x00\x00\x08\x04\xd2\x16\x2f", PostgreSQLTLS},
	"GSSENCRequest":               {"\x00\x00\x00\x08\x04\xd2\x16\x30", PostgreSQLTLS},
	"CancelRequest":               {"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02", PostgreSQL},
	"startup, version 3.0":        {"\x00\x00\x00\x29\x00\x03\x00\x00user\x00", PostgreSQL},
	"startup, version 3.2":        {"\x00\x00\x00\x29\x00\x03\x00\x02user\x00", PostgreSQL},
	"startup, version 2":          {"\x00\x00\x01\x28\x00\x02\x00\x00", Plain},
	"startup, too long":           {"\x00\x00\x27\x11\x00\x03\x00\x00", Plain},
	"a request that is too long":  {"\x00\x00\x00\x09\x04\xd2\x16\x2f", Plain},
	"zeroes":                      {"\x00\x00\x00\x00\x00\x00\x00\x00", Plain},
	"something":                   {"HELO mail.example\r\n", Plain},
	"PROXY":                       {"PROXY TCP4 ", Plain},
	"a character of another word": {"\xff", Plain},
}

func TestDetect(t *testing.T) {
	t.Parallel()
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, need := Detect([]byte(tt.in))
			if got != tt.want || need != 0 {
				t.Errorf("%v, need %d; want %v", got, need, tt.want)
			}
			// Byte by byte the same comes out, and nothing else before.
			for n := range len(tt.in) {
				p, need := Detect([]byte(tt.in[:n]))
				if need == 0 && p != tt.want || need != 0 && (p != Plain || need <= n) {
					t.Fatalf("with %d bytes: %v, need %d; want %v at last", n, p, need, tt.want)
				}
			}
		})
	}
}

func TestAtLast(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Protocol{"": Silent, "S": Plain, "GE": Plain, "\x16\x03": Plain, "GET ": HTTP, "\x00": Plain} {
		if got := AtLast([]byte(in)); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for p := Plain; p <= Silent; p++ {
		if got, err := Parse(p.String()); got != p || err != nil {
			t.Errorf("Parse(%q) = %v, %v", p.String(), got, err)
		}
	}
	if _, err := Parse("gopher"); err == nil {
		t.Error("gopher is known")
	}
}

func FuzzDetect(f *testing.F) {
	for _, tt := range cases {
		f.Add([]byte(tt.in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, need := Detect(b)
		if need != 0 && (need <= len(b) || need > MaxBytes || p != Plain) || need == 0 && AtLast(b) != p && len(b) > 0 {
			t.Fatalf("%q: %v, need %d", b, p, need)
		}
		if need != 0 {
			return
		}
		for _, more := range [][]byte{{0}, bytes.Repeat([]byte{'x'}, 20)} {
			if q, need := Detect(append(slices.Clone(b), more...)); q != p || need != 0 {
				t.Fatalf("%q: %v, and with more behind it %v, need %d", b, p, q, need)
			}
		}
	})
}
