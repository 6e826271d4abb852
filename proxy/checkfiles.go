package proxy

import (
	"maps"
	"slices"

	"github.com/spliced-io/spliced/proxy/internal/setting"
	"github.com/spliced-io/spliced/proxy/internal/tlsfiles"
)

// CheckFiles returns what is wrong with the certificates, keys and authorities that
// a configuration names, as this process finds them now. [Config.Check] looks at
// none of them.
func (c Config) CheckFiles() Problems {
	setting.Fill(&c)
	var k checker
	for _, name := range slices.Sorted(maps.Keys(c.Listeners)) {
		if t := c.Listeners[name].TLS; t != nil && len(t.Certificates) > 0 {
			if _, err := tlsfiles.NewServer(t.files()); err != nil {
				k.wrong(err.Error(), "listeners", name, "tls")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		if t := c.Upstreams[name].TLS; t != nil {
			if _, err := tlsfiles.NewClient(t.files()); err != nil {
				k.wrong(err.Error(), "upstreams", name, "tls")
			}
		}
	}
	return k.problems
}
