//go:build !linux

package main

import "os"

// listens: accept(2) will say so.
func listens(*os.File) bool { return true }
