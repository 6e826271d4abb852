//go:build !linux

// Package report writes the results of a run in fio's formats and as a page.
package report
