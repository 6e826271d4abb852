package bpf_test

import (
	"net"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/testnet"
)

// What is larger than the interface takes that it is to leave by is dropped, and user space told
// what its sender has to know, now and then; or, of one that leaves it to routers to divide its packets, that the pair
// is for sockets.
func TestWireTooBig(t *testing.T) {
	o := loadWire(t)
	testnet.Need(t, "netns")
	b, err := testnet.New("b")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	const mtu, dontFragment = 1300, 0x4000
	if err := testnet.Veth(b, "narrow", b, "peer"); err != nil {
		t.Fatal(err)
	}
	if err := b.SetMTU("narrow", mtu); err != nil {
		t.Fatal(err)
	}
	var narrow *net.Interface
	err = b.Do(func() (err error) {
		narrow, err = net.InterfaceByName("narrow")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := ringbuf.NewReader(o.Ended)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for i := range ways {
		w := &ways[i]
		ip := 20
		if w.a.Addr().Is6() {
			ip = 40
		}
		for _, tc := range []struct {
			name    string
			only    string // the address family, empty for both
			size    int
			divided bool // a router may
			fits    bool
		}{
			{"small", "", 100, false, true},
			{"just as large", "", mtu, false, true},
			{"a byte larger", "", mtu + 1, false, false},
			{"much larger", "", 1400, false, false},
			{"larger, and may be divided", "v4", 1400, true, false},
			{"just as large, and may be divided", "v4", mtu, true, true},
		} {
			if tc.only != "" && tc.only != w.name {
				continue
			}
			t.Run(w.name+" "+tc.name, func(t *testing.T) {
				keys := w.spliced(t, o)
				edit(t, o, &keys[0], func(f *bpf.WireFlow) {
					f.Rewrite.Ifindex = uint32(narrow.Index)
				})
				c := crafted{from: w.a, to: w.ba, seq: sentByA, ack: sentByC - addAck, flags: ack, window: 100, data: make([]byte, tc.size-ip-20)}
				if !tc.divided {
					c.fragment = dontFragment // of IPv6 nobody looks at it
				}
				want := int32(wireRedirect)
				if !tc.fits {
					want = wireDrop
				}
				began := time.Now()
				err := b.Do(func() error {
					for range 3 {
						if ret, _ := runWire(t, o, c.frame()); ret != want {
							t.Errorf("the program answers %d, want %d", ret, want)
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				most := 1 + int(time.Since(began)/(10*time.Millisecond))
				f, err := o.Flow(&keys[0])
				if err != nil || f.TooBig > 0 == tc.fits || f.Packets > 0 != tc.fits || f.Errors > 0 ||
					f.Divided > 0 != (tc.divided && !tc.fits) {
					t.Errorf("%+v, %v", f, err)
				}
				if f.End != sentByA && !tc.fits {
					t.Errorf("%d counts as sent, want %d: it was dropped", f.End, sentByA)
				}
				told := 0
				for ; reader.AvailableBytes() > 0; told++ {
					record, err := reader.Read()
					if err != nil {
						t.Fatal(err)
					}
					if tc.divided {
						var key bpf.WireKey
						if copy(unsafe.Slice((*byte)(unsafe.Pointer(&key)), unsafe.Sizeof(key)), record.RawSample) != len(record.RawSample) || key != keys[0] {
							t.Errorf("told %+v of %d bytes", key, len(record.RawSample))
						}
						continue
					}
					var is bpf.WireOversize
					copy(unsafe.Slice((*byte)(unsafe.Pointer(&is)), unsafe.Sizeof(is)), record.RawSample)
					if is.Key != keys[0] || is.Mtu != mtu || int(is.Size) != tc.size || is.Seq != sentByA {
						t.Errorf("told %+v", is)
					}
				}
				if told > 0 == tc.fits || told > most {
					t.Errorf("told %d times, want %d at most", told, most)
				}
			})
		}
	}
}
