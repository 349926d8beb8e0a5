package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// checkEvery is how often the file is looked at, at most.
const checkEvery = 100 * time.Millisecond

// Leases are kept in a file, so that every worker process has the same ones, they outlive a
// restart, and removing an entry revokes it even if the service hangs.
type Leases struct {
	path  string
	log   *slog.Logger
	crash func() // ends the process as SIGKILL does

	checked atomic.Int64 // unix nanoseconds of the last look
	current atomic.Pointer[snapshot]
	mu      sync.Mutex // held to read or change the file
}

type snapshot struct {
	leases   []*Lease // ordered by name
	requests []*Lease // those that hit requests
	info     fs.FileInfo
}

// Open returns the leases in the file at path, which need not exist.
func Open(path string, log *slog.Logger) *Leases {
	l := &Leases{path: path, log: log, crash: kill}
	l.current.Store(&snapshot{})
	return l
}

// List returns the leases in force, by name.
func (l *Leases) List() []*Lease {
	l.refresh(time.Now())
	return inForce(l.current.Load().leases)
}

// Put adds or replaces a lease, filling its times. *InvalidError when it breaks the contract.
func (l *Leases) Put(lease *Lease) error {
	lease.CreatedAt = time.Now().UTC().Truncate(time.Millisecond)
	lease.ExpiresAt = lease.CreatedAt.Add(time.Duration(lease.TTL) * time.Second)
	if err := lease.prepare(); err != nil {
		return err
	}
	return l.change(func(leases map[string]*Lease) { leases[lease.Name] = lease })
}

// Delete revokes a lease; a name without one is no error.
func (l *Leases) Delete(name string) error {
	return l.change(func(leases map[string]*Lease) { delete(leases, name) })
}

func (l *Leases) change(edit func(map[string]*Lease)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.load()
	leases := map[string]*Lease{}
	for _, lease := range inForce(l.current.Load().leases) {
		leases[lease.Name] = lease
	}
	edit(leases)
	raw, err := encode(leases)
	if err == nil {
		err = replace(l.path, raw)
	}
	if err != nil {
		return fmt.Errorf("writing the leases file: %w", err)
	}
	l.load()
	return nil
}

// refresh reads the file again if it was replaced since the last look.
func (l *Leases) refresh(now time.Time) {
	last := l.checked.Load()
	if now.UnixNano()-last < int64(checkEvery) || !l.checked.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.load()
}

func (l *Leases) load() {
	before := l.current.Load()
	info, err := os.Stat(l.path)
	if err != nil {
		if before.info != nil {
			l.current.Store(&snapshot{})
		}
		return
	}
	if same(before.info, info) {
		return
	}
	next := &snapshot{info: info}
	raw, err := os.ReadFile(l.path)
	var leases map[string]*Lease
	if err == nil {
		leases, err = decode(raw)
	}
	if err != nil {
		l.log.Warn("leases file is not usable: faults in it are ignored", "file", l.path, "error", err.Error())
	}
	for _, lease := range leases {
		// One that is as it was goes on counting where it is.
		kept := slices.IndexFunc(before.leases, lease.equal)
		if kept >= 0 {
			lease = before.leases[kept]
		}
		next.leases = append(next.leases, lease)
	}
	slices.SortFunc(next.leases, func(a, b *Lease) int { return strings.Compare(a.Name, b.Name) })
	next.requests = slices.DeleteFunc(slices.Clone(next.leases), (*Lease).Background)
	l.current.Store(next)
}

func same(a, b fs.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func inForce(leases []*Lease) []*Lease {
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(leases), func(l *Lease) bool { return !now.Before(l.ExpiresAt) })
}

// InForce tells whether the lease is neither over nor revoked nor replaced.
func (l *Leases) InForce(lease *Lease) bool {
	now := time.Now()
	l.refresh(now)
	return now.Before(lease.ExpiresAt) && slices.Contains(l.current.Load().leases, lease)
}

// Background returns the leases in force that hit the process as a whole.
func (l *Leases) Background() []*Lease {
	return slices.DeleteFunc(l.List(), func(lease *Lease) bool { return !lease.Background() })
}

// replace writes the file in one step: readers see the old content or the new.
func replace(path string, raw []byte) (err error) {
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
