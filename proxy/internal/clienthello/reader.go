package clienthello

// A reader takes values off the front of rest. Once rest was too short for one,
// it has failed and gives zeroes.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) failed() bool { return r.short }

// empty ends a loop over values: a reader that has failed is empty.
func (r *reader) empty() bool { return len(r.rest) == 0 }

func (r *reader) bytes(n int) []byte {
	if len(r.rest) < n {
		r.rest, r.short = nil, true
		return nil
	}
	v := r.rest[:n:n]
	r.rest = r.rest[n:]
	return v
}

func (r *reader) uint8() int {
	if v := r.bytes(1); v != nil {
		return int(v[0])
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if v := r.bytes(2); v != nil {
		return uint16(v[0])<<8 | uint16(v[1])
	}
	return 0
}

// vector8 and vector16 take bytes that their number, in one or two bytes, is
// before.
func (r *reader) vector8() []byte { return r.bytes(r.uint8()) }

func (r *reader) vector16() []byte { return r.bytes(int(r.uint16())) }

// within8 and within16 read one that r must consist of.
func (r *reader) within16() reader {
	v := reader{rest: r.vector16()}
	v.short = r.short || !r.empty()
	return v
}

func (r *reader) within8() reader {
	v := reader{rest: r.vector8()}
	v.short = r.short || !r.empty()
	return v
}
