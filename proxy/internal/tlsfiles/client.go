package tlsfiles

import (
	"crypto/tls"
)

// ClientFiles describe TLS sessions with servers.
type ClientFiles struct {
	// ServerName is sent to the server (SNI) and must be in its certificate.
	// Empty: that of the address, as [Client.Config] is told.
	ServerName string
	// Authorities is a file with the certificates that the server's must lead to.
	// Empty: the system's.
	Authorities string
	// NoVerify takes any certificate.
	NoVerify bool
	// Pair is the client's own certificate, if there is one.
	Pair Pair
	// MinVersion is the lowest version of TLS, 1.2 if it is 0.
	MinVersion uint16
	// ALPN are the protocols to offer, best first.
	ALPN []string
}

// A Client makes configurations of [ClientFiles].
type Client struct {
	source[tls.Config]
	of ClientFiles
}

// sessionsKept is how many servers' sessions are kept for resumption, until the files
// change.
const sessionsKept = 256

// NewClient reads the files.
func NewClient(f ClientFiles) (*Client, error) {
	c := &Client{of: f}
	if f.Authorities != "" {
		c.files = append(c.files, f.Authorities)
	}
	if f.Pair.Certificate != "" {
		c.files = append(c.files, f.Pair.Certificate, f.Pair.key())
	}
	c.make = c.config
	if err := c.open(); err != nil {
		return nil, err
	}
	return c, nil
}

// Config is for tls.Client, of a connection to that host.
func (c *Client) Config(host string) *tls.Config {
	config := c.current.Load().Clone()
	if config.ServerName == "" {
		config.ServerName = host
	}
	return config
}

func (c *Client) config() (*tls.Config, error) {
	f := &c.of
	config := &tls.Config{
		ServerName: f.ServerName, MinVersion: max(f.MinVersion, tls.VersionTLS12), NextProtos: f.ALPN,
		InsecureSkipVerify: f.NoVerify, ClientSessionCache: tls.NewLRUClientSessionCache(sessionsKept),
	}
	if f.Authorities != "" {
		pool, err := authorities(f.Authorities)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if f.Pair.Certificate != "" {
		cert, err := f.Pair.load()
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{*cert}
	}
	return config, nil
}
