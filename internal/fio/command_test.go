package fio

import "testing"

// Any command line is an error or a plan; nothing is opened but job files.
func FuzzCommandLine(f *testing.F) {
	f.Add("--name=a", "--rw=read", "--size", "4k")
	f.Add("--output-format=json,normal", "--eta=always", "--status-interval=1", "--name")
	f.Add("-name=a", "--direct", "1", "--minimal")
	f.Add("--section=x", "--max-jobs=0", "--cmdhelp", "rw")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		args := []string{}
		for _, arg := range []string{a, b, c, d} {
			if len(arg) > 0 && arg[0] == '-' && arg != "-" && arg != "--" { // no files
				args = append(args, arg)
			}
		}
		cmd, err := parseCommand(args)
		if err != nil {
			return
		}
		if cmd.maxJobs < 1 || cmd.status < 0 || cmd.etaEvery < 0 || len(cmd.formats) == 0 {
			t.Errorf("impossible command %+v", cmd)
		}
		_, _ = cmd.parser.Set()
	})
}
