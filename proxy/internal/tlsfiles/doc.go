// Package tlsfiles makes TLS configurations of files, which are read again when
// they change: a certificate is renewed without a reload, and a broken one is
// not taken.
package tlsfiles
