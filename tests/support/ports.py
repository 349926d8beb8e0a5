"""Free ports that no other test of this machine is given."""

import fcntl
import socket
import tempfile
from pathlib import Path

# Below the ports that kernels give to outgoing connections (Linux: from 32768).
FIRST, LAST = 15000, 31999


def claim(count: int = 1) -> list[int]:
    """The next `count` free ports, going round through a range by a counter that all tests share.

    Asking the kernel for a free port leaves a gap until it is bound, in which another worker or an
    outgoing connection may get it.
    """
    claimed: list[int] = []
    with (Path(tempfile.gettempdir()) / "prove-test-ports").open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        port = int(counter.read() or FIRST)
        while len(claimed) < count:
            port = port + 1 if FIRST <= port < LAST else FIRST
            if _is_free(port):
                claimed.append(port)
        counter.truncate(0)
        counter.write(str(port))
    return claimed


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
