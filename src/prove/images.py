"""Container images without Docker or a registry: facts, files, archives.

`IMAGES` says what each image is; the Dockerfiles say the same, and a test compares. `contents`
makes what lies on top of the base, `archive` the tarball that `docker load` and `ctr images import`
read. The bases are `scratch` and two file systems with Python 3.11 or PostgreSQL's programs, given
as directories (debootstrap makes them).
"""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from prove import tools
from prove.errors import UserError
from prove.tools import Progress

Base = Literal["scratch", "python", "postgresql"]
USER = "65532:65532"
POSTGRES_USER = "999:999"
VERSION = "0.1.0"
"""Of our own images: the chart's appVersion."""
APP = "/app"
"""Where Python images have their packages."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Image:
    """One image.

    `name` is its repository without a registry; `values` are the parts of the chart's values that
    name it, as in `kubeStateMetrics`, and none where the chart doesn't run it. A Go image has a
    `program` of prove.tools and its `binary`, a Python one its `packages` (directories of the
    repository) and its pinned `requirements`.
    """

    name: str
    title: str
    entrypoint: tuple[str, ...]
    values: tuple[str, ...]
    version: str = VERSION
    base: Base = "scratch"
    user: str = USER
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    program: str = ""
    binary: str = ""
    packages: tuple[str, ...] = ()
    requirements: str = ""
    dockerfile: str = ""

    def reference(self, registry: str) -> str:
        """`registry/name:version`; without a registry if that is empty."""
        return (
            f"{registry}/{self.name}:{self.version}" if registry else f"{self.name}:{self.version}"
        )


def _python(name: str, module: str, title: str, values: tuple[str, ...], **more: Any) -> Image:
    return Image(
        name=f"prove/{name}",
        title=title,
        entrypoint=("python3", "-m", module),
        values=values,
        base="python",
        env={"PYTHONPATH": APP, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        **more,
    )


def _server(name: str, binary: str, title: str, value: str) -> Image:
    """A server that is built from its pinned source."""
    return Image(
        name=f"prove/{name.replace('_', '-')}",
        title=title,
        entrypoint=(f"/{binary}",),
        values=(value,),
        version=tools.TOOLS[name].version or VERSION,
        program=name,
        binary=binary,
    )


def _all() -> Iterator[Image]:
    yield _python(
        "product-service",
        "product_service",
        "The catalogue of prove's shop and its reservations",
        ("product",),
        command=("serve",),
        packages=("libs/service-kit", "services/product-service"),
        requirements="services",
        dockerfile="services/product-service/Dockerfile",
    )
    yield Image(
        name="prove/order-service",
        title="The orders of prove's shop",
        entrypoint=("/order-service",),
        command=("serve",),
        values=("order",),
        program="order-service",
        binary="order-service",
        dockerfile="services/order-service/Dockerfile",
    )
    yield _python(
        "payment-service",
        "payment_service",
        "The payments of prove's shop",
        ("payment",),
        command=("serve",),
        packages=("libs/service-kit", "services/payment-service"),
        requirements="services",
        dockerfile="services/payment-service/Dockerfile",
    )
    yield Image(
        name="prove/acquirer",
        title="A card acquirer, simulated",
        entrypoint=("/acquirer",),
        command=("serve",),
        values=("acquirer",),
        program="acquirer",
        binary="acquirer",
        dockerfile="simulators/acquirer/Dockerfile",
    )
    yield _python(
        "canary",
        "prove.canary",
        "The canary of prove's shop",
        ("canary",),
        command=("--help",),
        packages=(".",),
        # It imports no more than the services do: a third of what provectl needs.
        requirements="services",
        dockerfile="canary.Dockerfile",
    )
    yield _python(
        "provectl",
        "prove",
        "The command line of prove",
        (),
        command=("--help",),
        packages=("libs/service-kit", "."),
        requirements="runtime",
        dockerfile="Dockerfile",
    )
    yield _server(
        "otelcol", "otelcol-prove", "The OpenTelemetry Collector prove needs", "collector"
    )
    yield _server("prometheus_kubernetes", "prometheus", "Prometheus", "prometheus")
    yield _server("alertmanager", "alertmanager", "Alertmanager", "alertmanager")
    yield _server("blackbox_exporter", "blackbox_exporter", "blackbox_exporter", "blackbox")
    yield _server("jaeger", "jaeger", "Jaeger, all in one", "jaeger")
    yield _server("victorialogs", "victoria-logs", "VictoriaLogs", "victorialogs")
    yield _server(
        "kube_state_metrics", "kube-state-metrics", "kube-state-metrics", "kubeStateMetrics"
    )
    yield Image(
        name="prove/postgresql",
        title="PostgreSQL, of the base's own packages",
        entrypoint=("postgres",),
        values=("postgresql",),
        version="15",
        base="postgresql",
        user=POSTGRES_USER,
        env={"PATH": f"{_PATH}:/usr/lib/postgresql/15/bin"},
    )


IMAGES: dict[str, Image] = {image.name.partition("/")[2]: image for image in _all()}


def chart_values(registry: str, names: Mapping[str, Image] = IMAGES) -> dict[str, Any]:
    """Values of the chart that make it use these images."""
    values: dict[str, Any] = {"image": {"registry": registry}}
    for image in names.values():
        for part in image.values:
            values[part] = {"image": {"repository": image.name, "tag": image.version}}
    return values


def contents(image: Image, into: Path, progress: Progress | None = None) -> None:
    """Make what lies on top of the image's base in the empty directory `into`, building binaries.

    Raises UserError when a build or an installation fails.
    """
    if image.program:
        if image.program in tools.SERVICES:
            binary = tools.ensure_service(image.program, progress)
        else:
            binary = tools.ensure(image.program, progress=progress)[image.binary]
        shutil.copy2(binary, into / image.binary)
        if _CERTIFICATES.is_file():
            (into / "etc/ssl/certs").mkdir(parents=True)
            shutil.copy2(_CERTIFICATES, into / "etc/ssl/certs")
    if image.packages:
        _install(image, into / APP.strip("/"))


def _install(image: Image, target: Path) -> None:
    """What the Dockerfile does: requirements by their hashes, then our own packages."""
    install_requirements(image, target)
    install_packages(image, target)


def install_requirements(image: Image, target: Path) -> None:
    """Other people's packages, by their hashes, into `target`; raises UserError."""
    pinned = tools.repository_root() / "requirements" / f"{image.requirements}.txt"
    _pip("--require-hashes", "-r", str(pinned), "--target", str(target))
    _tidy(target)


def install_packages(image: Image, target: Path) -> None:
    """Our own packages into `target`; raises UserError."""
    own = [str(tools.repository_root() / package) for package in image.packages]
    _pip("--no-deps", "--no-build-isolation", "--upgrade", "--target", str(target), *own)
    _tidy(target)


def _tidy(target: Path) -> None:
    for cache in target.rglob("__pycache__"):
        shutil.rmtree(cache)
    shutil.rmtree(target / "bin", ignore_errors=True)  # they name this machine's Python


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--no-compile", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise UserError(f"the image's Python packages can't be installed: {reason}")


def archive(image: Image, reference: str, layers: list[Path], out: Path) -> str:
    """Write a docker-archive of `layers`, directories from the base upwards; answers its id.

    The same files give the same bytes: owner root, times zero, sorted. Raises OSError.
    """
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        packed = [
            _pack(layer, Path(scratch) / f"{index}.tar") for index, layer in enumerate(layers)
        ]
        config = json.dumps(configuration(image, [digest for _, digest in packed]), sort_keys=True)
        identity = hashlib.sha256(config.encode()).hexdigest()
        manifest: dict[str, Any] = {
            "Config": f"{identity}.json",
            "RepoTags": [reference],
            "Layers": [f"{digest}.tar" for _, digest in packed],
        }
        with tarfile.open(out, "w") as tar:
            _add(tar, manifest["Config"], config.encode())
            for path, digest in packed:
                member = tarfile.TarInfo(f"{digest}.tar")
                member.size = path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(member, file)
            _add(tar, "manifest.json", json.dumps([manifest]).encode())
    return f"sha256:{identity}"


def configuration(image: Image, layers: list[str]) -> dict[str, Any]:
    """The OCI image configuration; `layers` are SHA-256 of the layers' tar files."""
    env = {"PATH": _PATH, **image.env}
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": list(image.entrypoint),
            **({"Cmd": list(image.command)} if image.command else {}),
            "Env": [f"{name}={value}" for name, value in env.items()],
            "User": image.user,
            "WorkingDir": "/",
            "Labels": labels(image),
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in layers]},
    }


def labels(image: Image) -> dict[str, str]:
    """OCI annotations, as labels."""
    return {
        "org.opencontainers.image.title": image.name.partition("/")[2],
        "org.opencontainers.image.description": image.title,
        "org.opencontainers.image.version": image.version,
    }


def _pack(directory: Path, out: Path) -> tuple[Path, str]:
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(directory.rglob("*")):
            member = tar.gettarinfo(path, path.relative_to(directory).as_posix())
            if member is None:  # a socket
                continue
            member.mtime = 0
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            if member.isreg():
                with path.open("rb") as file:
                    tar.addfile(member, file)
            else:
                tar.addfile(member)
    return out, _digest(out)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    file: IO[bytes] = io.BytesIO(content)
    tar.addfile(member, file)


def size(directory: Path) -> int:
    """Bytes of all files in it."""
    return sum(entry.lstat().st_size for entry in directory.rglob("*") if not os.path.isdir(entry))
