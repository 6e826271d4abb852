//go:build !linux

package testnet

import (
	"context"
	"errors"
	"net"
	"os/exec"
)

// Addresses of a [Chain].
const (
	AddrA  = "10.83.1.1"
	AddrBA = "10.83.1.2"
	AddrBC = "10.83.2.2"
	AddrC  = "10.83.2.1"
	PoolA  = "10.84.0.0/16"
	PoolC  = "10.85.0.0/16"
)

// A Namespace is a network namespace; there are none on this system.
type Namespace struct{}

// A Chain is three namespaces in a row; there are none on this system.
type Chain struct{ A, B, C *Namespace }

// New answers errors.ErrUnsupported.
func New(string) (*Namespace, error) { return nil, errors.ErrUnsupported }

// NewChain answers errors.ErrUnsupported.
func NewChain() (*Chain, error) { return nil, errors.ErrUnsupported }

// Reap finds nothing.
func Reap() ([]string, error) { return nil, nil }

// Close does nothing.
func (*Chain) Close() error { return nil }

// Close does nothing.
func (*Namespace) Close() error { return nil }

// Do answers errors.ErrUnsupported.
func (*Namespace) Do(func() error) error { return errors.ErrUnsupported }

// Start answers errors.ErrUnsupported.
func (*Namespace) Start(*exec.Cmd) error { return errors.ErrUnsupported }

// Listen answers errors.ErrUnsupported.
func (*Namespace) Listen(string, string) (net.Listener, error) { return nil, errors.ErrUnsupported }

// Dial answers errors.ErrUnsupported.
func (*Namespace) Dial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

// Sysctl answers errors.ErrUnsupported.
func (*Namespace) Sysctl(string, string) error { return errors.ErrUnsupported }

// ReadProcNet answers errors.ErrUnsupported.
func (*Namespace) ReadProcNet(string) ([]byte, error) { return nil, errors.ErrUnsupported }

func haveNetns() error { return errors.ErrUnsupported }

func haveBPF() error { return errors.ErrUnsupported }

func haveFUSE() error { return errors.ErrUnsupported }

func haveMPTCP() error { return errors.ErrUnsupported }

func haveOverride() error { return errors.ErrUnsupported }

func osInventory() map[string]string { return nil }

// FileSystems are none that could be made here.
func FileSystems() []string { return nil }

// FileSystem skips the test.
func FileSystem(t TB, kind string) string {
	t.Helper()
	t.Skipf("needs Linux to make a file system %s", kind)
	return ""
}

// AddLocal fails.
func (*Namespace) AddLocal(string) error { return errors.ErrUnsupported }
