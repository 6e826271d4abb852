package job

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func setRW(o *Options, v string, bare bool) error {
	word, suffix, has := strings.Cut(v, ":")
	err := choice(func(o *Options) *string { return &o.RW }, "read", "write", "trim", "randread", "randwrite",
		"randtrim", "rw>readwrite", "readwrite", "randrw", "trimwrite", "randtrimwrite")(o, word, bare)
	o.RWCount, o.RWSkip = 1, 0
	if err != nil || !has {
		return err
	}
	if strings.HasPrefix(o.RW, "rand") {
		n, err := bounded(suffix, o.KBBase, 1, math.MaxInt32)
		o.RWCount = int(n)
		return err
	}
	o.RWSkip, err = bounded(suffix, o.KBBase, math.MinInt64+1, math.MaxInt64)
	return err
}

func setBS(o *Options, v string, _ bool) error {
	return perDirection(v, func(dir int, v string) error {
		n, err := size(v, o.KBBase)
		if err == nil && (n == 0 || n > maxBlock) {
			err = fmt.Errorf("%s is outside 1 to %d", v, maxBlock)
		}
		o.BS[dir] = Span{n, n}
		return err
	})
}

const maxBlock = 1 << 30

func setBSRange(o *Options, v string, _ bool) error {
	v = strings.ReplaceAll(v, "/", ",")
	return perDirection(v, func(dir int, v string) error {
		s, err := span(v, o.KBBase)
		if err == nil && s.Max > maxBlock {
			err = fmt.Errorf("%s is outside 1 to %d", v, maxBlock)
		}
		o.BS[dir] = s
		return err
	})
}

// setBSSplit reads bs/percent:bs/percent…; what has no percentage shares the
// rest.
func setBSSplit(o *Options, v string, _ bool) error {
	return perDirection(v, func(dir int, v string) error {
		var shares []Share
		sum, open := 0, 0
		for part := range strings.SplitSeq(v, ":") {
			bs, pct, has := strings.Cut(part, "/")
			n, err := size(bs, o.KBBase)
			if err != nil || n == 0 || n > maxBlock {
				return fmt.Errorf("%q is no block size", bs)
			}
			share := Share{Size: n, Percent: -1}
			if has && pct != "" {
				if share.Percent, err = strconv.Atoi(pct); err != nil || share.Percent < 0 || share.Percent > 100 {
					return fmt.Errorf("%q is no percentage", pct)
				}
				sum += share.Percent
			} else {
				open++
			}
			if shares = append(shares, share); len(shares) > 64 {
				return errors.New("more than 64 block sizes")
			}
		}
		if sum > 100 || open == 0 && sum != 100 {
			return fmt.Errorf("the percentages add up to %d", sum)
		}
		rest := 100 - sum
		for i := range shares {
			if shares[i].Percent < 0 {
				shares[i].Percent = rest / open
				rest -= shares[i].Percent
				open--
			}
		}
		o.BSSplit[dir] = shares
		s := Span{shares[0].Size, shares[0].Size}
		for _, x := range shares {
			s.Min, s.Max = min(s.Min, x.Size), max(s.Max, x.Size)
		}
		o.BS[dir] = s
		return nil
	})
}

func setMix(read bool) setter {
	return func(o *Options, v string, _ bool) error {
		n, err := bounded(v, o.KBBase, 0, 100)
		if o.MixRead = int(n); !read {
			o.MixRead = 100 - int(n)
		}
		return err
	}
}

func setStartDelay(o *Options, v string, _ bool) error {
	lo, hi, has := strings.Cut(v, "-")
	a, err := duration(lo, time.Second)
	if err != nil {
		return err
	}
	b := a
	if has {
		if b, err = duration(hi, time.Second); err != nil {
			return err
		}
	}
	o.StartDelay = [2]time.Duration{min(a, b), max(a, b)}
	return nil
}

func setDistribution(o *Options, v string, _ bool) error {
	kind, arg, _ := strings.Cut(v, ":")
	if strings.HasPrefix(v, "zoned_abs=") { // as the manual spells it once
		kind, arg, _ = strings.Cut(v, "=")
	}
	d := Distribution{Kind: kind, Center: -1}
	switch kind {
	case "random":
	case "zipf", "pareto", "normal":
		first, center, has := strings.Cut(arg, ":")
		var err error
		if d.Theta, err = strconv.ParseFloat(first, 64); arg == "" {
			d.Theta, err = map[string]float64{"zipf": 1.1, "pareto": 0.2, "normal": 50}[kind], nil
		}
		if err == nil && has {
			d.Center, err = strconv.ParseFloat(center, 64)
		}
		bad := math.IsNaN(d.Theta) || d.Theta <= 0 || kind == "zipf" && d.Theta == 1 ||
			kind == "pareto" && d.Theta >= 1 || kind == "normal" && d.Theta > 100 || d.Center > 1 || has && !(d.Center >= 0)
		if err != nil || bad || d.Theta > 1e6 {
			return fmt.Errorf("%q: wants %s:number[:center between 0 and 1]", v, kind)
		}
	case "zoned", "zoned_abs":
		err := perDirection(arg, func(dir int, v string) (err error) {
			d.Zones[dir], err = zones(v, kind == "zoned_abs", o.KBBase)
			return err
		})
		if err != nil {
			return err
		}
	case "sequence":
		for word := range strings.SplitSeq(arg, ",") {
			n, err := strconv.ParseUint(word, 10, 62)
			if err != nil {
				return fmt.Errorf("%q: wants sequence: and numbers of blocks with commas between them", v)
			}
			if d.Blocks = append(d.Blocks, n); len(d.Blocks) > 64 {
				return errors.New("more than 64 blocks")
			}
		}
	default:
		return fmt.Errorf("%q is none of random, zipf, pareto, normal, zoned, zoned_abs, sequence", kind)
	}
	o.Dist = d
	return nil
}

func zones(v string, absolute bool, kbBase uint64) ([]Zone, error) {
	var list []Zone
	access, space, open := 0, uint64(0), -1 // the zone without a size gets the rest
	for part := range strings.SplitSeq(v, ":") {
		a, s, ok := strings.Cut(part, "/")
		pct, err := strconv.Atoi(a)
		if !ok || err != nil || pct < 0 || pct > 100 {
			return nil, fmt.Errorf("%q: wants access%%/size", part)
		}
		var n uint64
		if s == "" && open < 0 && !absolute {
			open = len(list)
		} else if n, err = size(s, kbBase); err != nil || n == 0 || !absolute && n > 100 {
			return nil, fmt.Errorf("%q is no zone size", s)
		}
		access, space = access+pct, space+n
		if list = append(list, Zone{pct, n}); len(list) > 256 {
			return nil, errors.New("more than 256 zones")
		}
	}
	if open >= 0 && space < 100 {
		list[open].Size, space = 100-space, 100
	}
	if access != 100 || !absolute && space != 100 {
		return nil, fmt.Errorf("%q: the percentages do not add up to 100", v)
	}
	return list, nil
}

func setFileService(o *Options, v string, _ bool) error {
	parts := strings.Split(v, ":")
	o.FileServiceNr = 1
	switch parts[0] {
	case "random", "roundrobin", "sequential":
		if len(parts) > 2 {
			return fmt.Errorf("%q: wants %s[:number]", v, parts[0])
		}
		if len(parts) == 2 {
			n, err := strconv.Atoi(parts[1])
			if err != nil || n < 1 {
				return fmt.Errorf("%q is no number of I/Os", parts[1])
			}
			o.FileServiceNr = n
		}
	case "zipf", "pareto", "normal", "gauss":
		o.FileServiceArg = map[string]float64{"zipf": 1.1, "pareto": 0.2, "normal": 50, "gauss": 50}[parts[0]]
		if len(parts) == 2 {
			f, err := strconv.ParseFloat(parts[1], 64)
			if err != nil || !(f > 0) || parts[0] == "zipf" && f == 1 || parts[0] == "pareto" && f >= 1 || f > 1e6 {
				return fmt.Errorf("%q is no number for %s", parts[1], parts[0])
			}
			o.FileServiceArg = f
		} else if len(parts) > 2 {
			return fmt.Errorf("%q: wants %s[:number]", v, parts[0])
		}
	default:
		return fmt.Errorf("%q is none of random, roundrobin, sequential, zipf, pareto, normal", parts[0])
	}
	o.FileService = parts[0]
	return nil
}

func setVerify(o *Options, v string, bare bool) error {
	return choice(func(o *Options) *string { return &o.Verify }, "0>", "md5", "crc64", "crc32", "crc32c-intel",
		"crc32c", "crc16", "crc7", "sha1", "sha256", "sha512", "sha3-224", "sha3-256", "sha3-384", "sha3-512",
		"xxhash", "meta", "pattern", "pattern_hdr", "null")(o, v, bare)
}

func setPattern(at func(*Options) **Pattern, format bool) setter {
	return func(o *Options, v string, bare bool) error {
		p, err := pattern(v, format)
		if err == nil {
			*at(o) = p
		}
		return err
	}
}

func setLog(at func(*Options) **string) setter {
	return func(o *Options, v string, bare bool) error {
		*at(o) = &v
		return nil
	}
}

func setCPUs(at func(*Options) *[]int) setter {
	return func(o *Options, v string, _ bool) error {
		var list []int
		for part := range strings.SplitSeq(v, ",") {
			lo, hi, has := strings.Cut(part, "-")
			a, err := strconv.Atoi(lo)
			b := a
			if err == nil && has {
				b, err = strconv.Atoi(hi)
			}
			if err != nil || a < 0 || b < a || b >= 1024 {
				return fmt.Errorf("%q is no CPU or range of CPUs", part)
			}
			for c := a; c <= b; c++ {
				list = append(list, c)
			}
		}
		*at(o) = list
		return nil
	}
}

func setCPUMask(o *Options, v string, _ bool) error {
	n, err := strconv.ParseUint(v, 0, 63)
	o.CPUs = nil
	for c := range 63 {
		if n>>c&1 != 0 {
			o.CPUs = append(o.CPUs, c)
		}
	}
	if err == nil && n == 0 {
		err = errors.New("names no CPU")
	}
	return err
}

// setIgnoreError reads errnos separated by : for each direction.
func setIgnoreError(o *Options, v string, _ bool) error {
	return perDirection(v, func(dir int, v string) error {
		o.IgnoreError[dir] = nil
		for word := range strings.SplitSeq(v, ":") {
			n, ok := errnoByName(word)
			if !ok {
				return fmt.Errorf("%q is no errno", word)
			}
			o.IgnoreError[dir] = append(o.IgnoreError[dir], n)
		}
		return nil
	})
}

func errnoByName(word string) (int, bool) {
	if n, err := strconv.Atoi(word); err == nil && n > 0 && n < 4096 {
		return n, true
	}
	e, ok := map[string]syscall.Errno{
		"EPERM": syscall.EPERM, "ENOENT": syscall.ENOENT, "EIO": syscall.EIO, "EAGAIN": syscall.EAGAIN,
		"ENOMEM": syscall.ENOMEM, "EACCES": syscall.EACCES, "EBUSY": syscall.EBUSY, "EINVAL": syscall.EINVAL,
		"ENOSPC": syscall.ENOSPC, "EROFS": syscall.EROFS, "EPIPE": syscall.EPIPE, "EILSEQ": syscall.EILSEQ,
		"ETIMEDOUT": syscall.ETIMEDOUT, "EINTR": syscall.EINTR, "EFBIG": syscall.EFBIG,
	}[word]
	return int(e), ok
}
