package splice

// WireCapabilities are what a process needs for [EngineWire] (capabilities(7)).
func WireCapabilities() []string {
	return []string{"CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_NET_RAW"}
}

// SockmapCapabilities are what a process needs for [EngineSockmap].
func SockmapCapabilities() []string {
	return []string{"CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"}
}
