"""Files that people asked for."""

from pathlib import Path

from prove.errors import UserError


def write(path: Path, text: str) -> None:
    """Write a file anew, and the directories it is in; raises UserError when that can't be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
