"""Incidents that leave the machine, and come to it: a directory, or the same as a tar file.

    prove-20261129T201500/          the bundle, as any method of root-cause analysis reads it
    truth/prove-20261129T201500.json   the true cause
    record/20261129T201500-…/       what was done and what clients saw

A blind one has the bundle alone: its reader has to find the cause.
"""

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from prove.errors import UserError
from prove.incident import bundle, objectives, record, sli, timeline
from prove.incident.bundle import BASELINE, BASELINE_FILE, BUNDLE_FILE
from prove.stack.hints import command

TRUTHS, RECORDS = "truth", "record"
SUFFIXES = {".tar": "w", ".tgz": "w:gz", ".gz": "w:gz"}
RECORD_FILES = (
    record.INCIDENT,
    record.LEDGER,
    record.PAGES,
    record.ALERTS,
    record.TRUTH,
    objectives.OBJECTIVES,
    sli.SLI,
    timeline.TIMELINE,
)


def export(directory: Path, to: Path, *, blind: bool) -> list[str]:
    """Write an incident below `to`, or as the tar file `to`; returns the names of its files.

    Raises UserError when it has no bundle, something is in its way, or it can't be written.
    """
    incident = record.read(directory)
    found = bundle.read(directory)
    if found is None:
        raise UserError(
            f"{directory} has no bundle: nothing but {command(f'review {incident.id}')} can read it"
        )
    files = dict(_files(directory, incident, found, blind=blind))
    if to.suffix in SUFFIXES:
        _write_tar(to, files)
    else:
        _write_directory(to, files)
    return sorted(files)


def take_in(source: Path, home: Path) -> Path:
    """Put an exported incident into a home; returns its directory there.

    Without a record only the bundle is there. Raises UserError for what is no export, is not whole,
    or is there already.
    """
    with tempfile.TemporaryDirectory(prefix="prove-import-") as scratch:
        root = Path(scratch)
        if source.is_dir():
            found = {
                path.relative_to(source).as_posix(): path
                for path in sorted(source.rglob("*"))
                if path.is_file() and not path.is_symlink()
            }
        else:
            found = _unpacked(source, root / "unpacked")
        kept = root / "kept"
        name = _arranged(source, found, kept)
        target = home / record.DIRECTORY / name
        if target.exists():
            raise UserError(f"{target} is there already; remove it to import it again")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(kept, target)
        except OSError as error:
            raise UserError(f"{target} cannot be written: {error.strerror}") from None
    return target


def _files(
    directory: Path, incident: record.Incident, found: bundle.Bundle, *, blind: bool
) -> Iterator[tuple[str, Path | str]]:
    """By name; a text is written as it stands."""
    from prove.cause import truth

    kept = directory / record.BUNDLE
    for path in sorted(kept.rglob("*")):
        if path.is_file():
            yield f"{found.id}/{path.relative_to(kept).as_posix()}", path
    if blind:
        return
    truths = directory / record.TRUTH
    if truths.exists():
        causes = [each.cause for each in record.read_document(truths, record.Truths).scenarios]
        about = {"id": found.id, "dataset": bundle.DATASET, "quality": found.quality}
        label = about | truth.label(incident, causes)
        yield f"{TRUTHS}/{found.id}.json", json.dumps(label, indent=1) + "\n"
    for name in RECORD_FILES:
        if (path := directory / name).exists():
            yield f"{RECORDS}/{incident.id}/{name}", path


def _write_tar(to: Path, files: dict[str, Path | str]) -> None:
    if to.exists():
        raise UserError(f"{to} is there already; name another file")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(to, SUFFIXES[to.suffix]) as tar:  # type: ignore[call-overload]
            for name, content in files.items():
                data = content.encode() if isinstance(content, str) else content.read_bytes()
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    except OSError as error:
        raise UserError(f"{to} cannot be written: {error.strerror}") from None


def _write_directory(to: Path, files: dict[str, Path | str]) -> None:
    for name in files:
        if (to / name).exists():
            raise UserError(f"{to / name} is there already; name another directory")
    try:
        for name, content in files.items():
            path = to / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8")
            else:
                shutil.copyfile(content, path)
    except OSError as error:
        raise UserError(f"{to} cannot be written to: {error.strerror}") from None


def _unpacked(source: Path, to: Path) -> dict[str, Path]:
    """The regular files of a tar: no links, and nothing outside of it."""
    found = {}
    try:
        with tarfile.open(source) as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if member.isdir():
                    continue
                if not member.isfile() or name.is_absolute() or ".." in name.parts:
                    raise UserError(f"{source} holds {member.name!r}, which no export has")
                content = tar.extractfile(member)
                path = to / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    shutil.copyfileobj(content or io.BytesIO(), file)
                found[name.as_posix()] = path
    except (OSError, tarfile.TarError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is no tar"
        raise UserError(f"{source} cannot be read: {why}") from None
    return found


def _arranged(source: Path, found: dict[str, Path], kept: Path) -> str:
    """Lay the files out as a home has them; returns the name of the incident's directory."""
    bundles = [name for name in found if PurePosixPath(name).name == BUNDLE_FILE]
    if len(bundles) != 1:
        raise UserError(
            f"{source} must hold one incident, a directory with {BUNDLE_FILE}; found {len(bundles)}"
        )
    of = PurePosixPath(bundles[0]).parent
    # A bundle may be named by its own directory, too; then its files have no directory in front.
    inside = "" if of == PurePosixPath() else f"{of}/"
    read = record.read_document(found[bundles[0]], bundle.Bundle)
    wanted = {f"{name}.parquet" for name in bundle.COLUMNS}
    wanted |= {f"{BASELINE}/{name}" for name in (*wanted, BASELINE_FILE)} | {BUNDLE_FILE}
    for name in sorted(wanted):
        if (path := found.get(f"{inside}{name}")) is not None:
            _copy(path, kept / record.BUNDLE / name)
    records = [name for name in found if PurePosixPath(name).name == record.INCIDENT]
    if not records:
        return f"{read.id.partition('-')[2] or read.id}-{bundle.DATASET}"
    parent = PurePosixPath(records[0]).parent
    for name in RECORD_FILES:
        if (path := found.get((parent / name).as_posix())) is not None:
            _copy(path, kept / name)
    incident = record.read(kept)
    if bundle.bundle_id(incident) != read.id:
        raise UserError(f"{source}: the record is of {incident.id}, the bundle of {read.id}")
    return incident.id


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
