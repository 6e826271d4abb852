//go:build !linux

// Package browser shows pages to a browser, for tests on Linux.
package browser
