package proxy

import "crypto/tls"

// ListenerTLS ends the TLS sessions of clients here. What crosses is then copied
// by this process, encrypted on one side: no other engine can.
type ListenerTLS struct {
	// Certificates are shown to clients: the one with the server name that the
	// client asks for, or else the first.
	Certificates []KeyPair `yaml:"certificates,required"`
	// MinVersion is the lowest version of TLS that is spoken: 1.2 or 1.3.
	MinVersion TLSVersion `yaml:"min_version" default:"1.2"`
	// ALPN are the application protocols on offer, the best first. Default: none is
	// negotiated.
	ALPN []string `yaml:"alpn"`
	// ClientCertificate is what is asked of clients: none, optional (one that is
	// shown must be good) or required.
	ClientCertificate ClientCertificate `yaml:"client_certificate" default:"none"`
	// ClientCA is the file with the certificates, in PEM, that those of clients must
	// lead to.
	ClientCA string `yaml:"client_ca"`
}

// UpstreamTLS speaks TLS with servers.
type UpstreamTLS struct {
	// ServerName is sent to the server, and must be in its certificate. Default: the
	// host of the server's address.
	ServerName string `yaml:"server_name"`
	// CA is the file with the certificates, in PEM, that the server's must lead to.
	// Default: those of this system.
	CA string `yaml:"ca"`
	// NoVerify takes any certificate: nobody can say then who the server is.
	NoVerify bool `yaml:"no_verify"`
	// Certificate is the file with the certificate to show to the server, in PEM.
	Certificate string `yaml:"certificate"`
	// Key is the file with the key of that. Default: it is in the same file.
	Key string `yaml:"key"`
	// MinVersion is the lowest version of TLS that is spoken: 1.2 or 1.3.
	MinVersion TLSVersion `yaml:"min_version" default:"1.2"`
	// ALPN are the application protocols to ask for. Default: the one that was
	// negotiated with the client, if its TLS ends here.
	ALPN []string `yaml:"alpn"`
}

// KeyPair is a certificate and its key, in files, which are read again when they
// change.
type KeyPair struct {
	// Certificate is the file with the certificate, in PEM, and the chain behind it.
	Certificate string `yaml:"certificate,required,short"`
	// Key is the file with the key. Default: it is in the same file.
	Key string `yaml:"key"`
}

// TLSVersion is a version of TLS.
type TLSVersion string

// Values lists the versions.
func (TLSVersion) Values() []string { return []string{"1.2", "1.3"} }

func (v TLSVersion) number() uint16 {
	if v == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

// ClientCertificate is what is asked of clients.
type ClientCertificate string

// Values lists what can be asked.
func (ClientCertificate) Values() []string { return []string{"none", "optional", "required"} }
