"""Images without a registry or a daemon: archives as `docker save` writes them."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Image:
    """What goes into one image.

    `layers` are tar files, the lowest first; `files` come as one more layer on top: by their place
    in the image, with mode 0755. `user` is numeric, or kubelet can't tell that it isn't root.
    """

    reference: str
    entrypoint: Sequence[str]
    layers: Sequence[Path] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    user: str = "65532:65532"
    environment: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    working_directory: str = "/"


def write(image: Image, path: Path) -> Path:
    """Write the archive that `ctr images import` and `docker load` read, and answer its path."""
    layers = [*image.layers]
    if image.files:
        layers.append(_files_layer(image.files, path.with_suffix(".files.tar")))
    digests = [_digest(layer) for layer in layers]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **image.environment}
    config = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": [f"{name}={value}" for name, value in environment.items()],
                "Entrypoint": list(image.entrypoint),
                "Cmd": list(image.command),
                "User": image.user,
                "WorkingDir": image.working_directory,
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        },
        sort_keys=True,
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [
        {
            "Config": name,
            "RepoTags": [image.reference],
            "Layers": [f"{digest}.tar" for digest in digests],
        }
    ]
    with tarfile.open(path, "w") as archive:
        _add(archive, name, config)
        for layer, digest in dict(zip(layers, digests, strict=True)).items():
            member = tarfile.TarInfo(f"{digest}.tar")
            member.size = layer.stat().st_size
            with layer.open("rb") as content:
                archive.addfile(member, content)
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    if image.files:
        layers[-1].unlink()
    return path


def _files_layer(files: Mapping[str, Path], path: Path) -> Path:
    made: set[str] = set()
    with tarfile.open(path, "w") as layer:
        for place, source in sorted(files.items()):
            place = place.lstrip("/")
            for parent in reversed(Path(place).parents[:-1]):
                if str(parent) not in made:
                    made.add(str(parent))
                    directory = tarfile.TarInfo(str(parent))
                    directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                    layer.addfile(directory)
            member = tarfile.TarInfo(place)
            member.size, member.mode = source.stat().st_size, 0o755
            with source.open("rb") as content:
                layer.addfile(member, content)
    return path


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
