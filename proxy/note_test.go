package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/splice"
)

// What a server leaves about a connection is read by the next one as it was meant, and nonsense is
// nothing.
func TestNote(t *testing.T) {
	f := splice.Flow{
		A: netip.MustParseAddrPort("192.0.2.1:1000"), ALocal: netip.MustParseAddrPort("192.0.2.2:80"),
		BLocal: netip.MustParseAddrPort("10.0.0.1:2000"), B: netip.MustParseAddrPort("10.0.0.2:80"),
	}
	own := [2]string{"tcp", f.B.String()}
	plain := Note{Listener: "web", Route: "default", Upstream: "app", Server: f.B.String(), Client: f.A, Dial: own}
	sni := plain
	sni.SNI = strings.Repeat("a", 60) + ".example.org"
	rich := Note{
		Listener: "öffentlich", Upstream: "app", Server: original, SNI: `"`, Client: netip.MustParseAddrPort("[2001:db8::1]:7"), Counted: true, Dial: [2]string{original, ""},
	}
	zoned := f
	zoned.A = netip.MustParseAddrPort("[fe80::1234:56ff:fe78:9abc]:1000") // as packets have it
	near := plain
	near.Client = netip.MustParseAddrPort("[fe80::1234:56ff:fe78:9abc%enp0s31f6]:1000")
	if got, ok := ReadNote(near.text(zoned), zoned); !ok || got.Client != near.Client {
		t.Errorf("%q is %+v, want the client with its zone", near.text(zoned), got)
	}
	for name, tc := range map[string]struct {
		note Note
		want Note
	}{
		"plain":             {plain, plain},
		"with a long name":  {sni, sni},
		"all that there is": {rich, rich},
		"too long with the client's name": {
			func() Note { n := sni; n.SNI = strings.Repeat("b", 253); return n }(), plain,
		},
	} {
		text := tc.note.text(f)
		if got, ok := ReadNote(text, f); !ok || got != tc.want {
			t.Errorf("%s: %q is %+v, want %+v", name, text, got, tc.want)
		}
	}
	if text := (Note{Listener: strings.Repeat("x", splice.NoteSize), Upstream: "app"}).text(f); text != "" {
		t.Errorf("a listener's name that is too long: %q", text)
	}
	for _, text := range []string{
		"", "{", "[]", "null", "0", "\x00\x01\xff", `{"l":"web"}`, `{"u":"app"}`, `{"l":1,"u":"app"}`, `{"l":"web","u":"app"}x`, `{"l":"web","u":"app","c":"nobody"}`,
		`{"l":"web","u":"app\n"}`, "{\"l\":\"web\x80\",\"u\":\"app\"}", `{"l":"\u001b[31m","u":"app"}`, `{"l":"web","u":"app","c":"[fe80::1%\u001b]:1"}`, `{"l":"web","u":"app","d":["\u0000",""]}`, `{"l":"web","u":"app","n":"` + strings.Repeat("n", splice.NoteSize) + `"}`,
	} {
		if n, ok := ReadNote(text, f); ok {
			t.Errorf("%q is %+v", text, n)
		}
	}
}
