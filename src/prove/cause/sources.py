"""What `provectl rca` is pointed at, as a bundle: a directory, an incident's record, a file."""

from dataclasses import replace
from pathlib import Path

from prove.cause import foreign
from prove.errors import UserError
from prove.incident import record
from prove.incident.bundle import BUNDLE_FILE
from prove.rca import bundle
from prove.rca.analysis import analyse
from prove.rca.bundle import Bundle
from prove.rca.model import Analysis
from prove.stack import settings as stack_settings
from prove.stack.hints import command


def at(
    path: Path,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    alert_s: float | None = None,
) -> Bundle:
    """A bundle's directory, that of a record with one, or a file of spans.

    The times, Unix seconds, are for the last. Raises UserError.
    """
    given = any(each is not None for each in (start_s, end_s, alert_s))
    if path.is_file():
        return foreign.read(path, start_s=start_s, end_s=end_s, alert_s=alert_s)
    if not path.exists():
        raise UserError(
            f"there is no bundle {path}: name its directory, or a file of spans (OTLP JSON, Jaeger "
            f"JSON); {command('rca --incident ID')} is for incidents that were run here"
        )
    if given:
        raise UserError(
            "--from, --to and --alert are for files of spans; a bundle says itself when it was"
        )
    if (path / record.INCIDENT).is_file():
        return of_record(path)
    return bundle.read(path)


def place(name: str) -> tuple[Path, Path]:
    """A bundle's directory, or that of an incident's record by its name; where in it the bundle is.

    Raises UserError.
    """
    if (Path(name) / BUNDLE_FILE).is_file():
        return Path(name), Path()
    return record.find(stack_settings.load().home, name), Path(record.BUNDLE)


def kept(name: str) -> Bundle:
    """The bundle that `place` finds; raises UserError."""
    directory, inside = place(name)
    return of_record(directory) if inside.parts else bundle.read(directory)


def of_record(directory: Path) -> Bundle:
    """The bundle of an incident's record; raises UserError."""
    kept = directory / record.BUNDLE
    if not kept.is_dir():
        raise UserError(
            f"{directory.name} has no bundle: it was cut short, or ended before its injection, or"
            " its evidence could not be kept"
        )
    return bundle.read(kept)


def explained(found: Bundle, notes: tuple[str, ...] = ()) -> Analysis:
    """Its causes; `notes` go before those of the analysis."""
    analysis = analyse(found)
    return replace(analysis, notes=(*notes, *analysis.notes)) if notes else analysis
