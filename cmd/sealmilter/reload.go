package main

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"sealmilter/keys/sqlite"
	"sealmilter/milter"
)

// checkTimeout bounds the look at a new store whatever its own limits are:
// meanwhile no other signal is obeyed.
const checkTimeout = 30 * time.Second

// fixedSettings need a restart: the sockets stay open over a reload, and the
// server has its places from the beginning.
var fixedSettings = []string{keyListen, "milter.mode", "milter.group", "milter.max_connections"}

// heldStore is a store and the settings of which messages may still use it.
// Several may: those of every reload that left the store as it was.
type heldStore struct {
	store
	keys   *cachedStore   // what messages ask
	copies milter.Copies  // nil where nothing is re-injected
	file   *sqlite.Copies // that copies are in, nil where they are in the store
	users  sync.WaitGroup
}

// openHeld opens the store that the configuration names, and the memory of
// copies in flight where there will be any.
func openHeld(ctx context.Context, cfg Config, log *slog.Logger) (*heldStore, error) {
	opened, err := openStore(ctx, cfg)
	if err != nil {
		return nil, err
	}
	held := &heldStore{store: opened, keys: remember(ctx, cfg.Store.Cache, opened, log)}
	if cfg.split() == milter.SplitReinject {
		if held.copies, held.file, err = cfg.openCopies(opened); err != nil {
			held.Close()
			return nil, err
		}
	}
	return held, nil
}

// Close closes all of it.
func (h *heldStore) Close() {
	h.keys.unwatch()
	h.store.Close()
	if h.file != nil {
		h.file.Close()
	}
}

// closeUnused closes the store once no message can ask it any more.
func (h *heldStore) closeUnused() {
	go func() {
		h.users.Wait()
		h.Close()
	}()
}

// reload takes the configuration as it is now, or keeps the one in force and
// says what is wrong with the new one.
func (d *daemon) reload(ctx context.Context) {
	d.manager.reloading()
	status := d.serving()
	if err := d.adopt(ctx); err != nil {
		d.log.Error("the new configuration is not used, the old one stays in force", "error", oneLine(err.Error()))
		status += "; the new configuration is not used: " + err.Error()
	}
	d.manager.ready(status)
}

// adopt puts the configuration in force, all of it or nothing, but for what
// needs a restart.
func (d *daemon) adopt(ctx context.Context) error {
	cfg, err := d.load()
	if err != nil {
		return err
	}
	if d.cfg.File != "" && cfg.File == "" {
		return configError("%s is gone", d.cfg.File)
	}
	changed := changedSettings(reflect.ValueOf(d.cfg), reflect.ValueOf(cfg), "")
	if !slices.Contains(changed, keyGlobalKeys) && !slices.Equal(globalFingerprints(d.cfg.policy), globalFingerprints(cfg.policy)) {
		changed = append(changed, keyGlobalKeys) // the same files, and other keys in them
	}
	cfg.Milter.Listen, cfg.Milter.Mode = d.cfg.Milter.Listen, d.cfg.Milter.Mode
	cfg.Milter.Group, cfg.Milter.MaxConnections = d.cfg.Milter.Group, d.cfg.Milter.MaxConnections
	secret, err := d.readSecret(cfg)
	if err != nil {
		return err
	}
	held, err := d.reopen(ctx, &cfg)
	if err != nil {
		return err
	}
	old := d.store
	d.cfg, d.store, d.secret = cfg, held, secret
	d.setLog(newLogger(cfg, d.logTo))
	released := d.server.Reconfigure(d.settings())
	old.users.Go(func() { <-released })
	if held != old {
		old.closeUnused()
	}
	d.logReload(changed)
	return nil
}

// logReload says what a reload has changed, and what it could not change.
func (d *daemon) logReload(changed []string) {
	isFixed := func(key string) bool { return slices.Contains(fixedSettings, key) }
	if fixed := slices.DeleteFunc(slices.Clone(changed), func(key string) bool { return !isFixed(key) }); len(fixed) > 0 {
		d.log.Warn("these settings change at a restart only, the old ones stay in force", "settings", fixed)
	}
	d.log.Info("reloaded", "changed", slices.DeleteFunc(changed, isFixed), "config", d.cfg)
	d.announcePolicy()
}

// reopen opens the store that a new configuration names, and always anew: behind
// the same URL there may be another file, or other passwords and certificates.
//
// A store that is away is no use in the place of one that answers. At another
// URL the new configuration is refused for it; at the same URL the store in
// use stays, its timeout too, and the rest of the configuration changes.
func (d *daemon) reopen(ctx context.Context, cfg *Config) (*heldStore, error) {
	held, err := openHeld(ctx, *cfg, d.log)
	if err == nil {
		looking, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		if err = checkStore(looking, d.log, *cfg, held); err == nil {
			return held, nil
		}
		held.Close()
	}
	if exitCode(err) != exitTempFail {
		return nil, err
	}
	if cfg.Store.URL != d.cfg.Store.URL || cfg.split() == milter.SplitReinject && d.store.copies == nil {
		return nil, fmt.Errorf("the new key store is away: %w", err)
	}
	d.log.Error("the key store is away, the connections to it stay as they were", "error", err)
	cfg.Store, cfg.Reinject.Copies = d.cfg.Store, d.cfg.Reinject.Copies
	return d.store, nil
}

// changedSettings names the settings in which two configurations differ.
func changedSettings(a, b reflect.Value, prefix string) (changed []string) {
	for field, value := range a.Fields() {
		tag := field.Tag.Get("toml")
		if tag == "" || tag == "-" {
			continue
		}
		other := b.FieldByIndex(field.Index)
		switch {
		case value.Kind() == reflect.Struct:
			changed = append(changed, changedSettings(value, other, prefix+tag+".")...)
		case !reflect.DeepEqual(value.Interface(), other.Interface()):
			changed = append(changed, prefix+tag)
		}
	}
	return changed
}
