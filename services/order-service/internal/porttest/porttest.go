// Package porttest finds free ports for tests.
package porttest

import (
	"math/rand/v2"
	"net"
	"strconv"
)

// Below the ports that kernels give to outgoing connections (Linux: from 32768), and apart from what
// service_kit.ports gives to the Python tests.
const first, last = 10_000, 14_999

// Free is a port of the loopback address that nothing listens on. Asking the kernel for one instead
// leaves a gap until it is bound, in which an outgoing connection may get it.
func Free() string {
	for {
		port := strconv.Itoa(first + rand.IntN(last-first+1))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			_ = l.Close()
			return port
		}
	}
}
