package proxy

import (
	"crypto/tls"
	"net"
	"slices"

	"github.com/spliced-io/spliced/proxy/internal/proxyproto"
)

// ProxyVersion is a version of the PROXY protocol.
type ProxyVersion string

// Values lists the versions.
func (ProxyVersion) Values() []string { return []string{"v1", "v2"} }

// proxyHeader is what a server is told of c, whose client's connection is client.
func (c *conn) proxyHeader(v ProxyVersion, client net.Conn) ([]byte, error) {
	h := proxyproto.Header{Version: 1, Source: c.client, Destination: addrPort(client.LocalAddr())}
	if c.target.IsValid() { // it was redirected
		h.Destination = c.target
	}
	if c.header != nil && c.header.Source.IsValid() {
		h.Destination = c.header.Destination
	}
	if v == "v1" {
		return proxyproto.Append(nil, &h, false)
	}
	h.Version = 2
	if c.header != nil {
		h.TLVs = slices.Clone(c.header.TLVs)
	}
	set := func(kind byte, value string) {
		if value != "" {
			h.TLVs = slices.DeleteFunc(h.TLVs, func(v proxyproto.TLV) bool { return v.Type == kind })
			h.TLVs = append(h.TLVs, proxyproto.TLV{Type: kind, Value: []byte(value)})
		}
	}
	set(proxyproto.TypeAuthority, c.sni)
	if c.tls != nil {
		set(proxyproto.TypeALPN, c.tls.NegotiatedProtocol)
		ssl := proxyproto.SSL{Version: tlsName(c.tls.Version), Cipher: tls.CipherSuiteName(c.tls.CipherSuite)}
		if len(c.tls.PeerCertificates) > 0 {
			ssl.Certificate, ssl.Verified = true, len(c.tls.VerifiedChains) > 0
			ssl.CommonName = c.tls.PeerCertificates[0].Subject.CommonName
		}
		v, err := ssl.TLV()
		if err != nil {
			return nil, err
		}
		set(v.Type, string(v.Value))
	}
	return proxyproto.Append(nil, &h, true)
}

// tlsName is a version as OpenSSL writes it, which is what the header's readers
// know.
func tlsName(version uint16) string {
	switch version {
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return tls.VersionName(version)
}
