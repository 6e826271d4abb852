// Package portable relays between two connections with goroutines: for those
// that have no descriptor (crypto/tls, [net.Pipe]) and for systems other than
// Linux. It keeps the promises of the event loops as far as an
// [io.ReadWriteCloser] lets it:
//
//   - FIN: forwarded by CloseWrite. A type without it can only be closed whole,
//     which is done when both directions have ended by EOF, not before: the
//     other direction may still be needed.
//   - RST: passed on by closing the underlying TCP connection with a linger
//     time of 0, without the close_notify of TLS. Other types have no RST and
//     are closed, which their peer may take for a clean end.
//   - Stop and limits: they interrupt reads and writes by deadlines, which are
//     set to none again afterwards (and at the start). A type without deadlines
//     is closed instead, so it is not usable after a stop. A TLS connection
//     whose write was cut short by a deadline can't be written to again, as
//     crypto/tls says.
//   - Buffers: a read that waits needs one, unlike in the event loops. It is a
//     small one (1 KiB a direction); a large one is borrowed while reads fill
//     the small one.
package portable
