// Package ioengine holds the ways in which spliced fio moves bytes to and from
// files and sockets. An engine belongs to one job and is used by one goroutine,
// which is locked to its thread.
//
// A transfer that moved less than was asked for is no error: the caller sees
// it and asks for the rest. Nothing moved at all is the end of the file.
package ioengine
