package proxyproto

import "encoding/binary"

// SSL is the value of type [TypeSSL]: the TLS session that the proxy has ended.
type SSL struct {
	Version     string // "TLSv1.3", as OpenSSL writes it
	Cipher      string
	Certificate bool   // the client has shown one in this session
	Verified    bool   // and it was found good
	CommonName  string // of its subject
}

// The bits of the first byte.
const (
	clientSSL      = 1
	clientCertConn = 2
	clientCertSess = 4
)

// TLV returns s as a value of a header.
func (s *SSL) TLV() (TLV, error) {
	b := []byte{clientSSL}
	if s.Certificate {
		b[0] |= clientCertConn | clientCertSess
	}
	verify := uint32(1) // 0 is for a certificate that was verified
	if s.Certificate && s.Verified {
		verify = 0
	}
	b = binary.BigEndian.AppendUint32(b, verify)
	for _, v := range [...]TLV{
		{TypeSSLVersion, []byte(s.Version)}, {TypeSSLCipher, []byte(s.Cipher)}, {TypeSSLCN, []byte(s.CommonName)},
	} {
		if len(v.Value) == 0 {
			continue
		}
		var err error
		if b, err = v.append(b); err != nil {
			return TLV{}, err
		}
	}
	return TLV{TypeSSL, b}, nil
}
