package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config"
	"github.com/spliced-io/spliced/splice"
)

// readyWire has the program of wire loaded, with the privileges that are left, where listeners of the
// file may use it; and says in the log whether connections of the engine auto are handed over to
// it, and why they are not. Where wire can't be had by name the start was refused.
func (d *daemon) readyWire(file *config.File) {
	var err error
	if usesWire(file) {
		err = d.wire.keep(file.WirePolicy())
	}
	if !hasEngine(file, splice.EngineAuto) {
		return
	}
	if err = d.whyNotWire(file, err); err != nil {
		d.log.Info("engine auto stays with splice and copy", "error", oneLine{err})
		return
	}
	d.log.Info("engine auto hands over to wire", "after_bytes", int64(file.Config.Wire.AfterBytes), "after_age", time.Duration(file.Config.Wire.AfterAge).String())
}

// whyNotWire returns why no connection of the engine auto can be handed over, if the program could
// be loaded, or not for err.
func (d *daemon) whyNotWire(file *config.File, err error) error {
	if len(file.Wants()) == 0 {
		return errors.New("no listener with it has connections that wire could carry")
	}
	var op *splice.Error
	if errors.As(err, &op) {
		err = fmt.Errorf("wire: %w", op.Err) // what it was for is nothing to the user
	}
	if err != nil && d.became {
		err = fmt.Errorf("user %s is given what wire takes for a listener with engine: wire only: %w", file.User, err)
	}
	return err
}

// usesWire says whether the file has listeners whose connections may be handed over to wire.
func usesWire(file *config.File) bool {
	return hasEngine(file, splice.EngineWire) || len(file.Wants()) > 0
}

// hasEngine says whether the file has a listener of that engine.
func hasEngine(file *config.File, engine splice.Engine) bool {
	for _, l := range file.Listeners {
		if l.Engine == engine {
			return true
		}
	}
	return false
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
