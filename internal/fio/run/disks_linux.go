package run

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Disk is what a disk did while the jobs ran.
type Disk struct {
	Name                    string
	ReadIOs, WriteIOs       uint64
	ReadMerges, WriteMerges uint64
	ReadTicks, WriteTicks   uint64 // ms
	InQueue                 uint64 // ms
	ReadSectors, WriteSects uint64
	Util                    float64 // percent
}

type diskWatch struct {
	run   *Run
	from  map[string][]uint64
	began time.Time
	list  []Disk
}

func watchDisks(r *Run) *diskWatch {
	return &diskWatch{run: r, from: diskStats(), began: time.Now()}
}

// end computes what happened to the disks that the jobs' files are on.
func (d *diskWatch) end() {
	took := time.Since(d.began)
	names := map[string]bool{}
	for _, w := range d.run.workers {
		if w.o.DiskUtil && !w.traits.Diskless {
			for _, f := range w.files {
				if n := diskOf(f.Name); n != "" {
					names[n] = true
				}
			}
		}
	}
	now := diskStats()
	for name := range names {
		a, b := d.from[name], now[name]
		if len(a) < 11 || len(b) < 11 {
			continue
		}
		delta := func(i int) uint64 { return b[i] - a[i] }
		d.list = append(d.list, Disk{
			Name: name, ReadIOs: delta(0), ReadMerges: delta(1), ReadSectors: delta(2), ReadTicks: delta(3),
			WriteIOs: delta(4), WriteMerges: delta(5), WriteSects: delta(6), WriteTicks: delta(7), InQueue: delta(10),
			Util: min(100, 100*float64(delta(9))/max(float64(took.Milliseconds()), 1)),
		})
	}
}

// Disks returns what the disks did; after Do.
func (r *Run) Disks() []Disk { return r.disks.list }

// diskStats are the numbers of /proc/diskstats after the name.
func diskStats() map[string][]uint64 {
	b, _ := os.ReadFile("/proc/diskstats")
	all := map[string][]uint64{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 14 {
			continue
		}
		var list []uint64
		for _, word := range f[3:] {
			n, _ := strconv.ParseUint(word, 10, 64)
			list = append(list, n)
		}
		all[f[2]] = list
	}
	return all
}

func diskOf(name string) string {
	var st syscall.Stat_t
	if syscall.Stat(name, &st) != nil && syscall.Stat(filepath.Dir(name), &st) != nil {
		return ""
	}
	dev := st.Dev
	if st.Mode&syscall.S_IFMT == syscall.S_IFBLK {
		dev = st.Rdev
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", dev>>8&0xfff, dev&0xff|dev>>12&^0xff))
	if err != nil {
		return ""
	}
	return filepath.Base(link)
}
