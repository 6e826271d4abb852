package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config"
	"github.com/spliced-io/spliced/splice"
)

// sayAuto says in the log whether connections of the engine auto are handed over to wire,
// and why they are not. It has the program loaded, with the privileges that are left: so
// that is the truth, and connections need not wait for it.
func (d *daemon) sayAuto(file *config.File) {
	auto := false
	for _, l := range file.Listeners {
		auto = auto || l.Engine == splice.EngineAuto
	}
	if !auto {
		return
	}
	if err := d.tryWire(file); err != nil {
		d.log.Info("engine auto stays with splice and copy", "error", oneLine{err})
		return
	}
	d.log.Info("engine auto hands over to wire", "after_bytes", int64(file.Config.Wire.AfterBytes), "after_age", time.Duration(file.Config.Wire.AfterAge).String())
}

// tryWire returns why no connection of the engine auto can be handed over.
func (d *daemon) tryWire(file *config.File) error {
	if len(file.Wants()) == 0 {
		return errors.New("no listener with it has connections that wire could carry")
	}
	release, err := splice.KeepWire(file.WirePolicy())
	context.AfterFunc(d.ending, release)
	var op *splice.Error
	if errors.As(err, &op) {
		err = fmt.Errorf("wire: %w", op.Err) // what it was for is nothing to the user
	}
	if err != nil && d.became {
		err = fmt.Errorf("user %s is given what wire takes for a listener with engine: wire only: %w", file.User, err)
	}
	return err
}

// wanted says what the file's listeners with the engine auto do with which capabilities,
// beside those that it needs; "" if with none.
func wanted(file *config.File, needs []proxy.Need) string {
	wants := file.Wants()
	if wants == nil {
		return ""
	}
	names, have := capabilities(wants), capabilities(needs)
	text := fmt.Sprintf("wanted %s %s to hand over to wire after %d bytes or %v; ", strings.Join(names, " "), wants[0].For, file.Config.Wire.AfterBytes, time.Duration(file.Config.Wire.AfterAge))
	switch {
	case !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(have, name) }):
		return text + "they are needed anyway"
	case file.User != "":
		text += "user " + file.User + " has them only if it is given them at the start; "
	}
	return text + "without one of them connections stay with splice and copy"
}
