package splice_test

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/spliced-io/spliced/splice"
)

// Without spliced flows a dialer connects as it would otherwise, to whatever it is.
// With some: TestWirePorts in internal/engine.
func TestDialControl(t *testing.T) {
	t.Parallel()
	for network, address := range map[string]string{
		"tcp": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": filepath.Join(t.TempDir(), "s"),
	} {
		ln, err := net.Listen(network, address)
		if err != nil {
			if network == "tcp6" {
				continue // a machine without IPv6
			}
			t.Fatal(err)
		}
		defer ln.Close()
		d := net.Dialer{Control: splice.DialControl}
		conn, err := d.Dial(network, ln.Addr().String())
		if err != nil {
			t.Errorf("%s: %v", network, err)
			continue
		}
		conn.Close()
	}
}
