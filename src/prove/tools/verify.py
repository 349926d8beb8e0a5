"""Checking that what would run is what go.sum pins."""

import re
import subprocess
from pathlib import Path

from prove.tools.builder import check_go, find, read_version, repository_root
from prove.tools.registry import Program


def problems(program: Program) -> list[str]:
    """What doesn't hold for a tool, a sentence each; empty when all does.

    Its binaries must be there and say the pinned version (one from PATH: a fitting one). Those we
    built must carry only modules whose checksums are in go.sum (Go records them in the binary),
    and the modules in Go's own cache must still match it. Raises UserError without a usable Go.
    """
    found = find(program)
    if found is None:
        return [f"not built yet: run `provectl tools build {program.name}`"]
    if found.source == "PATH":
        return []  # found because its version fits
    go = check_go(program)
    module = repository_root() / program.directory
    result = []
    for binary in program.binaries:
        path = found.binaries[binary.name]
        version = read_version(binary, path)
        if version != program.version:
            said = version or "none"
            result.append(f"{path} says version {said}, pinned is {program.version}")
        result += [f"{path} {what}" for what in _unpinned(go, path, module)]
    verified = subprocess.run(
        [go, "mod", "verify"], cwd=module, capture_output=True, text=True, check=False
    )
    if verified.returncode != 0:
        lines = (verified.stdout + verified.stderr).strip().splitlines()
        result.append(f"go mod verify: {lines[-1] if lines else 'failed'}")
    return result


def _unpinned(go: Path, binary: Path, module: Path) -> list[str]:
    """What is wrong with the modules a binary records, as the rest of a sentence on it."""
    pinned = set((module / "go.sum").read_text().splitlines())
    recorded = subprocess.run(
        [go, "version", "-m", str(binary)], capture_output=True, text=True, check=False
    )
    if recorded.returncode != 0:
        return ["holds no record of its modules"]
    # Lines: `dep|=>  path  version  h1:...`; a replaced module's checksum is on its `=>` line.
    modules = re.findall(r"^\t(?:dep|=>)\t(\S+\t\S+\th1:\S+)$", recorded.stdout, re.MULTILINE)
    lines = [str(module).replace("\t", " ") for module in modules]
    return [f"holds {line}, which is not in go.sum" for line in lines if line not in pinned]
