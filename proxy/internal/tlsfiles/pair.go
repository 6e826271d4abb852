package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// A Pair names a certificate's file, with the chain behind it, and its key's, in
// PEM. Without a Key both are in the first.
type Pair struct{ Certificate, Key string }

func (p Pair) key() string {
	if p.Key == "" {
		return p.Certificate
	}
	return p.Key
}

// load reads both files. The error names the file.
func (p Pair) load() (*tls.Certificate, error) {
	chain, err := os.ReadFile(p.Certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	key, err := os.ReadFile(p.key())
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if encrypted(key) {
		return nil, fmt.Errorf("key %s is encrypted: want one without a password", p.key())
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", p.Certificate, p.key(), err)
	}
	return &cert, nil
}

func encrypted(b []byte) bool {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return true
		}
	}
	return false
}

// authorities reads certificates to trust.
func authorities(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("authorities %s: %w", path, errors.New("there is no certificate in PEM in it"))
	}
	return pool, nil
}
