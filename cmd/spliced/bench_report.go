package main

import (
	"github.com/spliced-io/spliced/internal/netbench"
)

type benchReportCmd struct {
	File      string `arg:"" help:"A result file, written by --json."`
	HTML      string `name:"html" placeholder:"FILE" help:"Write a page with charts here."`
	Markdown  string `placeholder:"FILE" help:"Write tables as Markdown here."`
	SVG       string `name:"svg" placeholder:"DIR" help:"Write the charts as files into this directory."`
	Benchstat string `placeholder:"FILE" help:"Write lines for benchstat here."`
}

func (c *benchReportCmd) Run(std streams) error {
	file, err := netbench.ReadFile(c.File)
	if err != nil {
		return err
	}
	outputs, err := openOutputs([]outputTo{
		{"--html", c.HTML, netbench.WriteHTML},
		{"--markdown", c.Markdown, netbench.WriteMarkdown},
		{"--benchstat", c.Benchstat, netbench.WriteBenchstat},
	}, c.File)
	if err != nil {
		return err
	}
	defer outputs.discard()
	if c.SVG == "" && len(outputs.files) == 0 {
		return netbench.WriteTable(std.out, file)
	}
	var failures []error
	if c.SVG != "" {
		failures = append(failures, netbench.WriteSVGs(c.SVG, file))
	}
	return inOneLine(append(failures, outputs.commit(file)))
}
