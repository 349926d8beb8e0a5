"""Runbooks as text and commands."""

import re
import shlex
from pathlib import Path

from prove.tools import repository_root

DIRECTORY = repository_root() / "docs" / "runbooks"
SECTIONS = ("Meaning", "Impact", "Diagnosis", "Mitigation", "Escalation")
PROVECTL = ".venv/bin/provectl"

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:\.venv/bin/)?provectl [^`]+)`")
_PROMQL = re.compile(r"'query=([^']+)'")


def pages() -> dict[str, Path]:
    """The page of every alert; the index is none."""
    return {path.stem: path for path in DIRECTORY.glob("*.md") if path.stem != "README"}


def sections(page: Path) -> dict[str, str]:
    """The text below each heading."""
    parts = re.split(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(text: str) -> list[str]:
    """Every command in the blocks of a text, each on one line."""
    blocks = "".join(_BLOCK.findall(text)).replace("\\\n", "")
    return [line for line in blocks.splitlines() if line]


def provectl(text: str) -> list[list[str]]:
    """The arguments of every `provectl` in a text, in blocks and in sentences."""
    lines = [line for line in commands(text) if line.startswith(PROVECTL)]
    return [shlex.split(line)[1:] for line in [*lines, *_INLINE.findall(text)]]


def promql(text: str) -> list[str]:
    """The queries of a text."""
    return _PROMQL.findall(text)
