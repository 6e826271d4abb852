package tlsfiles

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
)

// ClientCertificate says what is asked of clients.
type ClientCertificate uint8

// What clients may be asked for.
const (
	NoCertificate       ClientCertificate = iota
	OptionalCertificate                   // one that is shown must be good
	RequiredCertificate
)

// ServerFiles describe the end of TLS sessions with clients.
type ServerFiles struct {
	// Pairs are the certificates, at least one. The client's server name chooses;
	// without one, or with another's, the first is shown. For one name there may
	// be several, with keys of different kinds.
	Pairs []Pair
	// MinVersion is the lowest version of TLS, 1.2 if it is 0.
	MinVersion uint16
	// ALPN are the protocols on offer, best first. A client that offers others
	// only is refused; without any nothing is negotiated.
	ALPN []string
	// ClientAuthorities is a file with the certificates that those of clients must
	// lead to. It is needed if the next is not NoCertificate.
	ClientAuthorities string
	ClientCertificate ClientCertificate
}

// A Server makes configurations of [ServerFiles].
type Server struct {
	source[tls.Config]
	of ServerFiles
}

// NewServer reads the files.
func NewServer(f ServerFiles) (*Server, error) {
	if len(f.Pairs) == 0 {
		return nil, errors.New("there is no certificate: want at least one")
	}
	if f.ClientCertificate != NoCertificate && f.ClientAuthorities == "" {
		return nil, errors.New("there are no authorities for the certificates of clients")
	}
	s := &Server{of: f}
	for _, p := range f.Pairs {
		s.files = append(s.files, p.Certificate, p.key())
	}
	if f.ClientAuthorities != "" {
		s.files = append(s.files, f.ClientAuthorities)
	}
	s.make = s.config
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

// Config is for tls.Server. Session tickets are encrypted with keys that
// crypto/tls makes anew each day and forgets after seven, and at once when the
// files change.
func (s *Server) Config() *tls.Config { return s.current.Load() }

func (s *Server) config() (*tls.Config, error) {
	f := &s.of
	config := &tls.Config{MinVersion: max(f.MinVersion, tls.VersionTLS12), NextProtos: f.ALPN}
	names := make(names)
	for i, p := range f.Pairs {
		cert, err := p.load()
		if err != nil {
			return nil, err
		}
		if i == 0 {
			names.add("", cert)
		}
		for _, name := range cert.Leaf.DNSNames {
			names.add(strings.ToLower(name), cert)
		}
	}
	config.GetCertificate = names.choose
	if f.ClientAuthorities != "" {
		pool, err := authorities(f.ClientAuthorities)
		if err != nil {
			return nil, err
		}
		config.ClientCAs = pool
	}
	switch f.ClientCertificate {
	case OptionalCertificate:
		config.ClientAuth = tls.VerifyClientCertIfGiven
	case RequiredCertificate:
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}

// names are certificates by the names in them; that of no name is the first.
type names map[string][]*tls.Certificate

func (n names) add(name string, c *tls.Certificate) { n[name] = append(n[name], c) }

// choose returns the certificate for a client: by the whole name, by a wildcard
// in place of its first label (RFC 9525 section 6.3), or else the first one.
func (n names) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	_, parent, _ := strings.Cut(name, ".")
	for _, key := range []string{name, "*." + parent, ""} {
		list := n[key]
		for _, c := range list {
			if hello.SupportsCertificate(c) == nil {
				return c, nil
			}
		}
		if len(list) > 0 {
			return list[0], nil // crypto/tls says what does not fit
		}
	}
	return nil, fmt.Errorf("no certificate for %q", name)
}
