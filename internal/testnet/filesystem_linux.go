package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// FileSystems are the kinds that [FileSystem] makes.
func FileSystems() []string { return []string{"ext4", "xfs", "btrfs", "tmpfs"} }

// FileSystem makes an empty file system of a kind, with room for some 300 MiB,
// and returns a directory in it that only this process can reach. It needs
// "root" and "filesystems" of [Need].
//
// Nothing of it has a name: the image is an unlinked file, the loop device lets
// go of it with its last user, and the mount is attached nowhere. So whatever
// becomes of the process, the kernel clears it away.
func FileSystem(t TB, kind string) (dir string) {
	t.Helper()
	Need(t, "root", "filesystems")
	mount, err := mountFresh(kind)
	if err != nil {
		t.Fatalf("make a file system %s: %v", kind, err)
	}
	t.Cleanup(func() { _ = sys.Close(mount) })
	return fmt.Sprintf("/proc/self/fd/%d", mount)
}

// imageBytes is what mkfs.xfs wants at least, and some more; the image is
// sparse.
const imageBytes = 400 << 20

func mountFresh(kind string) (mount int, err error) {
	fs, err := sys.FsOpen(kind)
	if err != nil {
		return 0, fmt.Errorf("fsopen: %w", err)
	}
	defer sys.Close(fs)
	if kind == "tmpfs" {
		err = sys.FsSet(fs, "size", "300m")
	} else {
		var device *os.File
		if device, err = loopDevice(kind); err != nil {
			return 0, err
		}
		defer device.Close() // the mount holds it
		err = sys.FsSet(fs, "source", device.Name())
	}
	if err != nil {
		return 0, fmt.Errorf("fsconfig: %w", err)
	}
	if err := sys.FsCreate(fs); err != nil {
		return 0, fmt.Errorf("mount: %w", err)
	}
	if mount, err = sys.FsMount(fs); err != nil {
		return 0, fmt.Errorf("fsmount: %w", err)
	}
	return mount, nil
}

// loopDevice returns a loop device with a fresh file system.
func loopDevice(kind string) (*os.File, error) {
	image, err := os.CreateTemp("", "spliced-image")
	if err != nil {
		return nil, err
	}
	defer image.Close() // the device holds it
	if err := os.Remove(image.Name()); err != nil {
		return nil, err
	}
	if err := image.Truncate(imageBytes); err != nil {
		return nil, err
	}
	force := "-f"
	if kind == "ext4" {
		force = "-F"
	}
	mkfs := exec.Command("mkfs."+kind, "-q", force, "/proc/self/fd/3")
	mkfs.ExtraFiles = []*os.File{image}
	if out, err := mkfs.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v: %w: %s", mkfs, err, out)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	const attempts = 100 // others look for free devices too
	for range attempts {
		var name string
		if name, err = sys.LoopFree(int(control.Fd())); err != nil {
			return nil, fmt.Errorf("find a loop device: %w", err)
		}
		var device *os.File
		if device, err = os.OpenFile(name, os.O_RDWR, 0); err != nil {
			return nil, err
		}
		if err = sys.LoopConfigure(int(device.Fd()), int(image.Fd())); err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, syscall.EBUSY) {
			break
		}
	}
	return nil, fmt.Errorf("set up a loop device: %w", err)
}
