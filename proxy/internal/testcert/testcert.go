// Package testcert makes certificates for tests.
package testcert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// An Issuer signs certificates and writes them to files below a directory.
type Issuer struct {
	// Path is the file of its own certificate.
	Path string
	// Pool has that.
	Pool *x509.CertPool

	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// New makes an Issuer, whose name is that of all others.
func New(dir string) (*Issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	i := &Issuer{dir: dir, key: key, Path: filepath.Join(dir, "ca.pem"), Pool: x509.NewCertPool()}
	if i.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	i.Pool.AddCert(i.cert)
	return i, write(i.Path, "CERTIFICATE", der)
}

// Issue writes NAME.pem and NAME.key: a certificate with that serial number for
// those host names, good for servers and clients.
func (i *Issuer) Issue(name string, serial int64, ofRSA bool, hosts ...string) (certificate, key string, err error) {
	var private crypto.Signer
	if ofRSA {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, private.Public(), i.key)
	if err != nil {
		return "", "", err
	}
	certificate, key = filepath.Join(i.dir, name+".pem"), filepath.Join(i.dir, name+".key")
	if err := write(certificate, "CERTIFICATE", der); err != nil {
		return "", "", err
	}
	if der, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		return "", "", err
	}
	return certificate, key, write(key, "PRIVATE KEY", der)
}

func write(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
