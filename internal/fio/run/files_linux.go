package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spliced-io/spliced/internal/fio/data"
	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/fio/rnd"
	"github.com/spliced-io/spliced/internal/sys"
)

// splitNames splits at colons that no backslash protects.
func splitNames(s string) []string {
	var list []string
	var name strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == ':':
			name.WriteByte(':')
			i++
		case s[i] == ':':
			list = append(list, name.String())
			name.Reset()
		default:
			name.WriteByte(s[i])
		}
	}
	return append(list, name.String())
}

// fileNames are the files of a clone of a job.
func fileNames(o *job.Options, clone int) []string {
	var names []string
	if o.Filename != "" {
		names = splitNames(o.Filename)
	} else {
		for i := range o.NrFiles {
			r := strings.NewReplacer("$jobname", strings.ReplaceAll(o.Section, "/", "_"), "$jobnum", strconv.Itoa(clone),
				"$filenum", strconv.Itoa(i), "$clientuid", "localhost")
			names = append(names, r.Replace(o.FilenameFormat))
		}
	}
	if o.Directory == "" {
		return names
	}
	dirs := splitNames(o.Directory)
	for i, n := range names {
		if !filepath.IsAbs(n) {
			names[i] = filepath.Join(dirs[(clone+i)%len(dirs)], n)
		}
	}
	return names
}

// A layout makes the files of jobs, one job at a time, and knows which of them
// it made.
type layout struct {
	say  func(format string, args ...any)
	stop func() bool
}

// prepare sizes a worker's files and makes them where needed.
func (l *layout) prepare(w *worker) error {
	names := fileNames(w.o, w.clone)
	if w.traits.Diskless {
		return l.diskless(w, names)
	}
	sizes, err := l.sizes(w, names)
	if err != nil {
		return err
	}
	var todo []int
	for i, name := range names {
		f := &ioengine.File{Name: name, FD: -1, Direct: w.o.Direct, Write: changes(w.o) && !w.o.VerifyOnly}
		w.files = append(w.files, f)
		if err := l.one(w, f, i, sizes[i], &todo); err != nil {
			return err
		}
	}
	return l.fill(w, todo)
}

func (l *layout) diskless(w *worker, names []string) error {
	size := int64(w.o.Size.Bytes) / int64(len(names))
	if size == 0 {
		size = int64(w.o.FileSize.Max)
	}
	if size == 0 && w.traits.Network && w.o.IOSize.Bytes > 0 {
		size = int64(w.o.IOSize.Bytes)
	}
	if size == 0 {
		if !w.o.TimeBased && w.o.NumberIOs == 0 && !w.traits.Network {
			return errors.New("needs size or filesize")
		}
		size = 1 << 50
	}
	for i, name := range names {
		f := &ioengine.File{Name: name, FD: -1, Size: size}
		w.files = append(w.files, f)
		if !w.addRegion(f, i, int64(w.o.Offset.Bytes)+int64(w.o.OffsetIncrement.Bytes)*int64(w.clone), size) {
			return errMap(f)
		}
	}
	return nil
}

func errMap(f *ioengine.File) error {
	return fmt.Errorf("%s has too many blocks for a random map: set norandommap or softrandommap", f.Name)
}

// sizes are what each file should have, 0: as it is.
func (l *layout) sizes(w *worker, names []string) ([]int64, error) {
	o := w.o
	sizes := make([]int64, len(names))
	for i := range sizes {
		switch {
		case o.FileSize.Max > 0 && o.FileSize.Min != o.FileSize.Max:
			sizes[i] = int64(o.FileSize.Min + w.r.Below(o.FileSize.Max-o.FileSize.Min+1))
		case o.FileSize.Max > 0:
			sizes[i] = int64(o.FileSize.Max)
		default:
			sizes[i] = int64(o.Size.Bytes) / int64(len(names))
		}
	}
	return sizes, nil
}

// one finds out about a file and makes it, unless it has to be filled with
// data, for which it is noted in todo.
func (l *layout) one(w *worker, f *ioengine.File, i int, size int64, todo *[]int) error {
	o := w.o
	info, err := os.Stat(f.Name)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if exists && info.IsDir() {
		return &fs.PathError{Op: "open", Path: f.Name, Err: syscall.EISDIR}
	}
	if exists && info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) != 0 {
		// open(2) of a FIFO would wait for its other end, and no signal ends that.
		return fmt.Errorf("%s is a pipe or socket, which has no offsets: %w", f.Name, syscall.ESPIPE)
	}
	var have int64
	if exists {
		if have, err = l.existing(f, info, o); err != nil {
			return err
		}
	}
	offset, err := offsetOf(o, w.clone, have, size)
	if err != nil {
		return err
	}
	if o.FileAppend {
		offset = have
	}
	want := size + offset
	if o.Size.Percent > 0 {
		size = int64(float64(have)*o.Size.Percent/100) - offset
		want = have
	}
	switch {
	case f.Device || exists && !info.Mode().IsRegular():
		if have > 0 && (size == 0 || want > have) {
			size = have - offset
		}
	case size == 0:
		if !exists || have == 0 {
			return fmt.Errorf("%s: you need to specify size (the file does not exist, or is empty)", f.Name)
		}
		size = have - offset
	case have < want:
		if !exists && (!o.AllowCreate || o.VerifyOnly) {
			return &fs.PathError{Op: "open", Path: f.Name, Err: syscall.ENOENT}
		}
		if o.FillDevice {
			break
		}
		if !o.CreateOnOpen {
			if !exists {
				w.made = append(w.made, f.Name)
			}
			if err := l.extend(w, f, i, have, want, todo); err != nil {
				return err
			}
		}
	}
	f.Size = max(offset+size, 0)
	if !w.addRegion(f, i, offset, size) {
		return errMap(f)
	}
	return nil
}

// changes says whether the job changes its files, or the job did that
// verify_only comes after.
func changes(o *job.Options) bool { return o.Writes() || o.Trims() }

func (l *layout) existing(f *ioengine.File, info os.FileInfo, o *job.Options) (int64, error) {
	if info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0 {
		return info.Size(), nil
	}
	f.Device = true
	if f.Write && !o.AllowMounted {
		if mounted(f.Name) {
			return 0, fmt.Errorf("%s is mounted: set allow_mounted_write to write to it", f.Name)
		}
	}
	d, err := os.Open(f.Name)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	n, err := sys.BlockDeviceSize(int(d.Fd()))
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", f.Name, err)
	}
	return int64(n), nil
}

func mounted(device string) bool {
	b, _ := os.ReadFile("/proc/mounts")
	real, err := filepath.EvalSymlinks(device)
	if err != nil {
		real = device
	}
	for line := range strings.Lines(string(b)) {
		if d, _, _ := strings.Cut(line, " "); d == real || d == device {
			return true
		}
	}
	return false
}

func offsetOf(o *job.Options, clone int, have, size int64) (int64, error) {
	base := max(have, size)
	off := int64(o.Offset.Bytes)
	if o.Offset.Percent > 0 {
		off = int64(float64(base) * o.Offset.Percent / 100)
		if align := int64(o.OffsetAlign); align > 0 {
			off = (off + align - 1) / align * align
		}
	}
	inc := int64(o.OffsetIncrement.Bytes)
	if o.OffsetIncrement.Percent > 0 {
		inc = int64(float64(base) * o.OffsetIncrement.Percent / 100)
	}
	if clone > 0 && inc > (1<<62-off)/int64(clone) {
		return 0, errors.New("offset_increment too large")
	}
	return off + inc*int64(clone), nil
}

// extend makes a file as large as the job needs it. What will be read has to
// be written first.
func (l *layout) extend(w *worker, f *ioengine.File, i int, have, want int64, todo *[]int) error {
	o := w.o
	f.Size = want
	if o.Reads() || o.Overwrite || o.Trims() && !o.Writes() {
		*todo = append(*todo, i)
		return nil
	}
	fd, err := os.OpenFile(f.Name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer fd.Close()
	switch o.Fallocate {
	case "truncate":
		err = fd.Truncate(want)
	case "native", "posix", "keep":
		err = sys.Fallocate(int(fd.Fd()), o.Fallocate == "keep", 0, want)
		if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
			err = nil
		}
	}
	if err == nil && w.traits.Mapped {
		err = fd.Truncate(want)
	}
	if err != nil {
		return fmt.Errorf("make %s of %d bytes: %w", f.Name, want, err)
	}
	return nil
}

// fill writes files that will be read.
func (l *layout) fill(w *worker, todo []int) error {
	if len(todo) == 0 {
		return nil
	}
	var sum int64
	for _, i := range todo {
		sum += w.files[i].Size
	}
	plural := "file"
	if len(todo) > 1 {
		plural = "files"
	}
	l.say("%s: Laying out IO %s (%d %s / total %dMiB)", w.o.Name, plural, len(todo), plural, sum>>20)
	block := make([]byte, 1<<20)
	r := rnd.New(w.o.Seed)
	for _, i := range todo {
		if err := l.write(w, w.files[i], block, &r); err != nil {
			return err
		}
	}
	return nil
}

func (l *layout) write(w *worker, file *ioengine.File, block []byte, r *rnd.Rand) (err error) {
	f, err := os.OpenFile(file.Name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if w.o.Fallocate == "native" {
		_ = sys.Fallocate(int(f.Fd()), false, 0, file.Size) // helps where it works
	}
	filler := data.NewFiller(w.o, r.Uint64())
	for off := int64(0); off < file.Size; off += int64(len(block)) {
		if l.stop() {
			return syscall.EINTR
		}
		n := min(int64(len(block)), file.Size-off)
		switch {
		case w.o.ZeroBuffers || w.o.BufferPattern != nil:
			filler.Once(block)
		case w.o.Verify != "" && w.o.VerifyPattern != nil:
			data.Repeat(block, w.o.VerifyPattern, uint64(off))
		default:
			data.Random(block, r.Uint64())
		}
		if _, err := f.WriteAt(block[:n], off); err != nil {
			return fmt.Errorf("lay out: %w", err)
		}
	}
	if w.o.CreateFsync {
		return f.Sync()
	}
	return nil
}

// enough refuses a job that has no room for a single block.
func (w *worker) enough() error {
	if w.o.CreateOnly || w.traits.Network {
		return nil
	}
	for _, c := range w.cursors {
		if c.length >= c.least {
			return nil
		}
	}
	c := w.cursors[0]
	return fmt.Errorf("%d bytes of %s are less than the block size %d: %w", max(c.length, 0), c.file.Name, c.least, syscall.EINVAL)
}

// open opens a file for the I/O itself.
func (w *worker) open(f *ioengine.File) error {
	if f.FD >= 0 || w.traits.Diskless && !w.traits.Network {
		return nil
	}
	if !w.traits.Diskless {
		flags := syscall.O_CLOEXEC | syscall.O_RDONLY
		if f.Write {
			flags = syscall.O_CLOEXEC | syscall.O_RDWR
			if w.o.AllowCreate {
				flags |= syscall.O_CREAT
			}
		}
		if w.o.Direct {
			flags |= sys.OpenDirect
		}
		switch w.o.SyncIO {
		case "sync":
			flags |= syscall.O_SYNC
		case "dsync":
			flags |= syscall.O_DSYNC
		}
		fd, err := syscall.Open(f.Name, flags, 0o644)
		if err != nil {
			if errors.Is(err, syscall.EINVAL) && w.o.Direct {
				err = fmt.Errorf("%w (does this file system have direct=1?)", err)
			}
			return &fs.PathError{Op: "open", Path: f.Name, Err: err}
		}
		f.FD = fd
		w.advise(f)
	}
	if err := w.engine.Open(f); err != nil {
		w.closeFile(f)
		return err
	}
	return nil
}

// advise tells the kernel about the access and drops the file from the cache.
func (w *worker) advise(f *ioengine.File) {
	if w.o.Invalidate && !w.o.PreRead && !w.invalidated[f] {
		// Dirty pages can't be dropped.
		if changes(w.o) {
			_ = sys.Fdatasync(f.FD)
		}
		w.invalidated[f] = true
		w.drop(f)
	}
	switch {
	case w.o.Fadvise == "random" || w.o.Fadvise == "1" && w.o.Random():
		f.Advice = sys.AdviseRandom
		_ = sys.Fadvise(f.FD, 0, 0, f.Advice)
	case w.o.Fadvise == "sequential" || w.o.Fadvise == "1":
		f.Advice = sys.AdviseSequential
		_ = sys.Fadvise(f.FD, 0, 0, f.Advice)
	case w.o.Fadvise == "noreuse":
		_ = sys.Fadvise(f.FD, 0, 0, sys.AdviseNoReuse)
	}
}

// drop takes a file out of the page cache before it is begun again, as fio
// does: a second pass over a file that fits into memory would measure nothing
// but memory.
func (w *worker) drop(f *ioengine.File) {
	if f.FD >= 0 && w.o.Invalidate && !w.o.PreRead {
		_ = sys.Fadvise(f.FD, 0, 0, sys.AdviseDontNeed)
	}
}

// settle writes the files back and takes them out of the page cache: what is
// verified then comes from where it has to last.
func (w *worker) settle() error {
	for _, f := range w.files {
		if f.FD < 0 {
			continue
		}
		err := w.unmapped(f, func() error {
			if err := sys.Fsync(f.FD); err != nil && !errors.Is(err, syscall.EINVAL) { // not every device has it
				return err
			}
			_ = sys.Fadvise(f.FD, 0, 0, sys.AdviseDontNeed)
			return nil
		})
		if err != nil {
			return w.fail(ioengine.Fsync, f, 0, err)
		}
	}
	return nil
}

// unmapped calls do while the engine has let go of a file: pages that are mapped
// can't be dropped.
func (w *worker) unmapped(f *ioengine.File, do func() error) error {
	if err := w.engine.Close(f); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return w.engine.Open(f)
}

func (w *worker) closeFile(f *ioengine.File) {
	if f.FD >= 0 {
		if w.o.FsyncOnClose && f.Write {
			_ = sys.Fsync(f.FD)
		}
		_ = sys.Close(f.FD)
		f.FD = -1
	}
}

// preRead reads the files into the page cache.
func (w *worker) preRead() error {
	block := make([]byte, 1<<20)
	for _, f := range w.files {
		if err := w.open(f); err != nil {
			return err
		}
		for off := int64(0); off < f.Size && !w.stopped(); {
			n, err := syscall.Pread(f.FD, block, off)
			if err != nil {
				return fmt.Errorf("pre_read %s: %w", f.Name, err)
			}
			if n == 0 {
				break
			}
			off += int64(n)
		}
	}
	return nil
}
