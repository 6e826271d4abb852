package sys

import (
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// zoneIndex returns the interface index of an IPv6 zone.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

// zoneName returns the zone of an address that socket fd knows with interface
// index: the interface's name in fd's network namespace, which need not be the
// process's, or its number once it is gone.
func zoneName(fd int, index uint32) string {
	if index == 0 {
		return ""
	}
	request, err := unix.NewIfreq("")
	if err == nil {
		request.SetUint32(index)
		err = unix.IoctlIfreq(fd, unix.SIOCGIFNAME, request)
	}
	if err != nil {
		return strconv.FormatUint(uint64(index), 10)
	}
	return request.Name()
}
