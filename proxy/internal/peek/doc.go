// Package peek waits until clients have said enough to decide about them, and
// reads nothing: what they have sent stays in their sockets, for whoever gets
// the connection.
//
// On Linux a client that waits costs two hundred bytes and no goroutine, however
// slowly it sends: the event loop that has accepted it, or else one goroutine that
// has them all, is woken only when as many bytes are there as were asked for.
// Connections without a descriptor, and all of them on other systems, have a
// goroutine and a buffer each, and what was read comes along.
package peek
