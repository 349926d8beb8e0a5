// Package porttest finds free ports for tests.
package porttest

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// As service_kit.ports has it: below the ports that kernels give to outgoing connections.
const first, last = 15_000, 31_999

// Free is a port of the loopback address that nothing listens on, and that no other test is given:
// all processes go round one range by a counter that they share with the Python tests. Asking the
// kernel for one instead leaves a gap until it is bound, in which somebody else may get it.
func Free() string {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("prove-ports-%d", os.Getuid()))
	counter, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	defer func() { _ = counter.Close() }() // and unlocks it
	if err := syscall.Flock(int(counter.Fd()), syscall.LOCK_EX); err != nil {
		panic(err)
	}
	raw, _ := io.ReadAll(counter)
	port, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	for {
		if port++; err != nil || port < first || port > last {
			port, err = first, nil
		}
		found := strconv.Itoa(port)
		if l, err := net.Listen("tcp", "127.0.0.1:"+found); err == nil {
			_ = l.Close()
			_ = counter.Truncate(0)
			if _, err := counter.WriteAt([]byte(found), 0); err != nil {
				panic(err)
			}
			return found
		}
	}
}
