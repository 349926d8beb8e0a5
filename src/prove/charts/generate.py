"""All that is generated for Kubernetes: the chart's files, `k8s/` and the table of values."""

import subprocess
from pathlib import Path

from prove.charts import reference, rendered, sources
from prove.errors import UserError

CHART = Path("charts") / "prove"
FILES = CHART / "files"
K8S = Path("k8s")
REFERENCE = Path("docs") / "reference" / "chart-values.md"
PLACES = (FILES, K8S, REFERENCE)
"""What is generated: two directories and a page."""
BY_HAND = frozenset({"edges.yaml", "kind.yaml"})
"""In `FILES` and `K8S`, not generated."""


def helm(binary: Path, *arguments: str) -> str:
    """What `helm` prints; raises UserError with what it says when it fails."""
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"helm {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


def build(root: Path, binary: Path) -> dict[str, str]:
    """Write everything; the text of each file by its name below `root`. Raises UserError."""
    made = {f"{FILES}/{name}": text for name, text in sources.files(root / "observability").items()}
    _replace(root, made)  # what is rendered next reads them
    made |= {f"{K8S}/{name}": text for name, text in _manifests(root, binary).items()}
    made[str(REFERENCE)] = reference.table(root / CHART)
    _replace(root, made)
    return made


def differences(root: Path, binary: Path) -> list[str]:
    """Names of generated files that are not as they would be made now; raises UserError."""
    made = {f"{FILES}/{name}": text for name, text in sources.files(root / "observability").items()}
    wrong = _wrong(root, FILES, made)
    manifests = {f"{K8S}/{name}": text for name, text in _manifests(root, binary).items()}
    wrong += _wrong(root, K8S, manifests)
    if _read(root / REFERENCE) != reference.table(root / CHART):
        wrong.append(str(REFERENCE))
    return sorted(wrong)


def _manifests(root: Path, binary: Path) -> dict[str, str]:
    def run(*arguments: str) -> str:
        return helm(binary, *arguments)

    return rendered.files(root / CHART, run)


def _wrong(root: Path, directory: Path, made: dict[str, str]) -> list[str]:
    there = {
        path.relative_to(root).as_posix()
        for path in (root / directory).rglob("*")
        if path.is_file() and path.name not in BY_HAND
    }
    differs = [name for name, text in made.items() if _read(root / name) != text]
    return differs + sorted(there - set(made))


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _replace(root: Path, made: dict[str, str]) -> None:
    """Write `made`, and remove what is generated no longer."""
    for directory in (FILES, K8S):
        if not any(name.startswith(f"{directory}/") for name in made):
            continue
        for name in _wrong(root, directory, made):
            if name not in made:
                (root / name).unlink()
    for name, text in made.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
