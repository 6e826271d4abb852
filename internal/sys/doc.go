// Package sys wraps system calls, one call a function, and is the only
// importer of golang.org/x/sys/unix. Errors are bare errnos
// ([syscall.Errno]): whoever reports one wraps it.
package sys
