"""How a service starts: its commands, its listening socket, and what it says when it cannot."""

import argparse
import errno
import socket
import sys
from collections.abc import Callable, Mapping


class StartupError(Exception):
    """The service cannot start; the message is one sentence that says what to do. Exit code 2."""


def run(service: str, commands: Mapping[str, Callable[[], None]]) -> None:
    """Run the command named on the command line (the first of `commands` is the default)."""
    parser = argparse.ArgumentParser(prog=service)
    parser.add_argument("command", nargs="?", choices=list(commands), default=next(iter(commands)))
    command = parser.parse_args().command
    try:
        commands[command]()
    except StartupError as error:
        print(f"{service}: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen, so that a busy port is known before anything else is started.

    Raises:
        StartupError: the address is in use, not permitted or not ours.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise StartupError(f"HOST: {host!r} is not an address: {error.strerror}") from None
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(2048)
    except OSError as error:
        sock.close()
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise StartupError(
                f"{where} is already in use; set PORT or stop the other process (ss -ltnp shows it)"
            ) from None
        raise StartupError(f"cannot listen on {where}: {error.strerror}") from None
    return sock
