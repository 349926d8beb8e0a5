package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// checkEvery is how often the file is looked at, at most.
const checkEvery = 100 * time.Millisecond

// Leases are kept in a file: they outlive a restart, and removing an entry revokes it.
type Leases struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	checked time.Time
	info    fs.FileInfo
	leases  []*Lease // by name
}

// Open returns the leases in the file at path, which need not exist.
func Open(path string, log *slog.Logger) *Leases { return &Leases{path: path, log: log} }

// List returns the leases in force, by name.
func (l *Leases) List() []*Lease { return l.inForce(time.Now()) }

// Put adds or replaces a lease, from now for its time.
func (l *Leases) Put(lease *Lease) error {
	lease.CreatedAt = time.Now().UTC().Truncate(time.Millisecond)
	lease.ExpiresAt = lease.CreatedAt.Add(time.Duration(lease.TTL) * time.Second)
	return l.change(lease.Name, lease)
}

// Delete revokes a lease; a name without one is no error.
func (l *Leases) Delete(name string) error { return l.change(name, nil) }

func (l *Leases) inForce(now time.Time) []*Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.checked) >= checkEvery {
		l.checked = now
		l.load()
	}
	return slices.DeleteFunc(slices.Clone(l.leases), func(one *Lease) bool { return !now.Before(one.ExpiresAt) })
}

func (l *Leases) change(name string, to *Lease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.load()
	now := time.Now()
	kept := slices.DeleteFunc(slices.Clone(l.leases), func(one *Lease) bool {
		return one.Name == name || !now.Before(one.ExpiresAt)
	})
	if to != nil {
		kept = append(kept, to)
	}
	if err := write(l.path, kept); err != nil {
		return fmt.Errorf("writing the leases file: %w", err)
	}
	l.load()
	return nil
}

// load reads the file again if it is another one than before.
func (l *Leases) load() {
	info, err := os.Stat(l.path)
	if err != nil {
		l.leases, l.info = nil, nil
		return
	}
	if l.info != nil && os.SameFile(l.info, info) && l.info.ModTime().Equal(info.ModTime()) && l.info.Size() == info.Size() {
		return
	}
	leases, err := read(l.path)
	if err != nil {
		l.log.Warn("leases file is not usable: faults in it are ignored", "file", l.path, "error", err.Error())
	}
	for i, lease := range leases {
		// One that is as it was goes on counting where it is.
		if kept := slices.IndexFunc(l.leases, lease.equal); kept >= 0 {
			leases[i] = l.leases[kept]
		}
	}
	l.leases, l.info = leases, info
}

// file is the format that the services of prove share.
type file struct {
	Version int              `json:"version"`
	Leases  map[string]entry `json:"leases"`
}

type entry struct {
	Type      string                     `json:"type"`
	Params    map[string]json.RawMessage `json:"params"`
	TTL       int                        `json:"ttl_s"`
	CreatedAt int64                      `json:"created_at_unix_ms"`
	ExpiresAt int64                      `json:"expires_at_unix_ms"`
}

func read(path string) ([]*Lease, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f file
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, err
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("version %d is not known", f.Version)
	}
	var leases []*Lease
	var errs []error
	for name, e := range f.Leases {
		lease, err := New(name, e.Type, e.Params, e.TTL)
		if err != nil {
			errs = append(errs, fmt.Errorf("lease %s: %w", name, err))
			continue
		}
		lease.CreatedAt, lease.ExpiresAt = time.UnixMilli(e.CreatedAt).UTC(), time.UnixMilli(e.ExpiresAt).UTC()
		leases = append(leases, lease)
	}
	slices.SortFunc(leases, func(a, b *Lease) int { return strings.Compare(a.Name, b.Name) })
	return leases, errors.Join(errs...)
}

// write replaces the file in one step: readers see the old content or the new.
func write(path string, leases []*Lease) (err error) {
	f := struct {
		Version int            `json:"version"`
		Leases  map[string]any `json:"leases"`
	}{1, map[string]any{}}
	for _, l := range leases {
		f.Leases[l.Name] = struct {
			Type      string `json:"type"`
			Params    Params `json:"params"`
			TTL       int    `json:"ttl_s"`
			CreatedAt int64  `json:"created_at_unix_ms"`
			ExpiresAt int64  `json:"expires_at_unix_ms"`
		}{l.Type, l.Params, l.TTL, l.CreatedAt.UnixMilli(), l.ExpiresAt.UnixMilli()}
	}
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	if _, err = tmp.Write(raw); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
