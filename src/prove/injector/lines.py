"""Files of JSON lines that survive whoever writes them."""

import os
from pathlib import Path


def append(path: Path, *lines: bytes) -> None:
    """Add whole lines; they are on disk when this returns. Raises OSError."""
    with path.open("ab+") as file:
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            file.write(b"\n")  # of a line that a killed one did not finish
        file.write(b"".join(line + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[bytes]:
    """All lines, the last of which may not be whole; none when there is no file."""
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
