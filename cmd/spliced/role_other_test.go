//go:build !linux

package main

func testRole() func(args []string) error { return nil }
