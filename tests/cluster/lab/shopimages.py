"""The shop's images as archives, made once and kept: what they are says prove.images.

Their base is a Debian of packages, by debootstrap; the release's images have others (Dockerfiles).
"""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from prove import images
from prove.tools import cache_dir, repository_root
from prove.tools.builder import entry_dir
from prove.tools.progress import Progress
from prove.tools.registry import SERVICES, TOOLS
from tests.cluster.lab.node import LabError

REGISTRY = "prove.local"
SUITE = "bookworm"
# One for both: PostgreSQL's programs for its own image, Python for ours.
_INCLUDED = "python3,postgresql-15,ca-certificates"
_NOT_NEEDED = (
    *("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/i18n"),
    *("usr/share/man", "usr/share/info", "var/log", "usr/lib/python3/dist-packages"),
    # Compiling queries: what takes most of the room, and none of ours is worth it.
    *(
        "usr/lib/*/libLLVM*",
        "usr/lib/*/libz3*",
        "usr/lib/postgresql/*/lib/llvmjit*",
        "usr/lib/postgresql/*/lib/bitcode",
    ),
)
_OF_POSTGRESQL = (
    *("usr/lib/postgresql", "usr/share/postgresql*", "usr/share/perl*", "usr/lib/*/perl*"),
    *("usr/lib/*/libperl*", "usr/lib/*/libicu*", "usr/lib/*/libxslt*"),
)
"""What an image of ours with Python does without."""
_ENVOY = images.Image(
    name="prove/envoy",
    title="Envoy, as PyPI has it: the chart's is Envoy's own image",
    entrypoint=("envoy",),
    values=(),
    version="lab",
    base="python",
    env={"PATH": f"{images.APP}/envoy/_bin:/usr/bin"},
    requirements="mesh",
)
_IMAGES = {**images.IMAGES, "envoy": _ENVOY}


def archives(
    names: Iterable[str] = tuple(images.IMAGES), progress: Progress | None = None
) -> list[Path]:
    """Archives of the named images, built unless they are kept; raises LabError, UserError."""
    home = cache_dir() / "cluster"
    home.mkdir(parents=True, exist_ok=True)
    base = _base(home)
    made = []
    for name in names:
        image = _IMAGES[name]
        path = home / f"{name}-{_hash(image, base)}.tar"
        if not path.exists():
            if progress:
                progress.phase(f"image {name}", "its files")
            for old in home.glob(f"{name}-*.tar"):
                old.unlink()
            _build(image, base, path, progress)
            if progress:
                progress.done(f"image {name}", "made")
        made.append(path)
    return made


def _build(image: images.Image, base: Path, path: Path, progress: Progress | None) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        own = Path(directory) / "own"
        own.mkdir()
        layers = [own] if image.base == "scratch" else [base / image.base, own]
        if image.requirements:
            layers.insert(1, _requirements(image, path.parent))
        if image.packages:
            images.install_packages(image, own / images.APP.strip("/"))
        else:
            images.contents(image, own, progress)
        scratch = Path(directory) / "image.tar"
        images.archive(image, image.reference(REGISTRY), layers, scratch)
        scratch.rename(path)


def _requirements(image: images.Image, home: Path) -> Path:
    """Other people's packages as a layer of its own: it is kept while ours change."""
    pinned = repository_root() / "requirements" / f"{image.requirements}.txt"
    digest = hashlib.sha256(pinned.read_bytes()).hexdigest()[:16]
    path = home / f"requirements-{image.requirements}-{digest}"
    if not path.is_dir():
        for old in home.glob(f"requirements-{image.requirements}-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            layer = Path(scratch) / "layer"
            images.install_requirements(image, layer / images.APP.strip("/"))
            layer.rename(path)
    return path


def _hash(image: images.Image, base: Path) -> str:
    """Of all that goes into an image."""
    digest = hashlib.sha256(repr(image).encode())
    root = repository_root()
    program = SERVICES.get(image.program) or TOOLS.get(image.program)
    if program:
        digest.update(entry_dir(program).name.encode())
    if image.base != "scratch":
        digest.update(base.name.encode())
    if image.requirements:
        digest.update((root / "requirements" / f"{image.requirements}.txt").read_bytes())
    for package in image.packages:
        source = root / package / "src" if (root / package / "src").is_dir() else root / package
        for file in sorted(source.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(root)).encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _base(home: Path) -> Path:
    """A directory with the bases: Debian with `postgresql`, and with `python` alone."""
    facts = hashlib.sha256(
        f"{SUITE} {_INCLUDED} {_NOT_NEEDED} {_OF_POSTGRESQL}".encode()
    ).hexdigest()[:16]
    path = home / f"debian-{facts}"
    if path.is_dir():
        return path
    if not shutil.which("debootstrap"):
        raise LabError("Debian's package debootstrap is missing: `make test-cluster` installs it")
    work = Path(tempfile.mkdtemp(prefix=".debian-", dir=home))
    try:
        log = home / "debootstrap.log"
        with log.open("w") as out:
            done = subprocess.run(
                # In a mount namespace: what it mounts goes with it, however it ends.
                [
                    *("unshare", "--mount", "debootstrap", "--variant=minbase"),
                    *(f"--include={_INCLUDED}", SUITE, str(work)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            reason = (log.read_text(errors="replace").splitlines() or ["it failed"])[-1]
            raise LabError(f"debootstrap: {reason} (all of it: {log})")
        _remove(work, _NOT_NEEDED)
        # initdb looks its user's name up; the chart's is that of the official image.
        with (work / "etc/passwd").open("a") as passwd:
            passwd.write("prove-postgres:x:999:999::/tmp:/bin/sh\n")
        for device in (work / "dev").iterdir():
            device.unlink() if not device.is_dir() or device.is_symlink() else shutil.rmtree(device)
        work.chmod(0o755)
        both = home / f".{path.name}"
        both.mkdir()
        subprocess.run(["cp", "-al", str(work), str(both / "python")], check=True)
        _remove(both / "python", _OF_POSTGRESQL)
        work.rename(both / "postgresql")
        both.rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for old in home.glob("debian-*"):
        if old != path:
            shutil.rmtree(old, ignore_errors=True)
    return path


def _remove(root: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
