"""TCP ports of the loopback address that are free, and given to nobody else meanwhile."""

import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path

HOST = "127.0.0.1"
# Below the ports that kernels give to outgoing connections (Linux: from 32768).
FIRST, LAST = 15_000, 31_999


def claim(count: int = 1) -> list[int]:
    """The next `count` free ports, going round a range by a counter that all processes share.

    Asking the kernel for a free port leaves a gap until it is bound, in which another process or an
    outgoing connection may get it.

    Raises:
        OSError: there are not that many.
    """
    claimed: list[int] = []
    counter_path = Path(tempfile.gettempdir()) / f"prove-ports-{os.getuid()}"
    with counter_path.open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        last = counter.read()
        port = int(last) if last.isdigit() else FIRST
        for _ in range(FIRST, LAST + 1):
            port = port + 1 if FIRST <= port < LAST else FIRST
            if is_free(port):
                claimed.append(port)
            if len(claimed) == count:
                break
        else:
            reason = f"no {count} ports are free between {FIRST} and {LAST}"
            raise OSError(errno.EADDRINUSE, reason)
        counter.truncate(0)
        counter.write(str(port))
    return claimed


def is_free(port: int) -> bool:
    """Whether nobody listens on it now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
