package netbench

import (
	"os"
	"path/filepath"
	"strings"
)

func (m *Machine) detail() {
	m.Kernel = readWord("/proc/sys/kernel/osrelease")
	m.CongestionControl = readWord("/proc/sys/net/ipv4/tcp_congestion_control")
	m.IdleDriver = readWord("/sys/devices/system/cpu/cpuidle/current_driver")
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		kib, _ := keyed(info, "MemTotal")
		m.MemoryBytes = kib << 10
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			name, value, _ := strings.Cut(line, ":")
			switch strings.TrimSpace(name) {
			case "model name", "Model":
				m.CPUModel = strings.TrimSpace(value)
			case "flags":
				m.Virtual = strings.Contains(value, " hypervisor")
			}
		}
	}
	m.Sysctls = map[string]string{}
	for _, key := range []string{
		"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.core.rmem_max", "net.core.wmem_max",
		"net.core.somaxconn", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_tw_reuse",
		"fs.pipe-max-size", "fs.pipe-user-pages-soft", "fs.file-max",
	} {
		if value := readWord("/proc/sys/" + strings.ReplaceAll(key, ".", "/")); value != "" {
			m.Sysctls[key] = value
		}
	}
	m.Mitigations = map[string]string{}
	files, _ := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	for _, file := range files {
		if state := readWord(file); state != "" && state != "Not affected" {
			m.Mitigations[filepath.Base(file)] = state
		}
	}
}

// readWord returns a file's content on one line, or nothing.
func readWord(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(content)), " ")
}
