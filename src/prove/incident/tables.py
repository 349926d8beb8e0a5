"""Parquet files, and questions to them and to files of JSON lines, by DuckDB."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prove.errors import UserError


def write(path: Path, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows, by `columns` and their SQL types, in their order; returns how many.

    A row that is there twice is written once: exporters send again what may not have arrived.
    Raises UserError.
    """
    import duckdb

    lines = path.with_suffix(".rows")
    try:
        with lines.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        with duckdb.connect() as connection:
            typed = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
            names = ", ".join(columns)
            written = connection.execute(
                f"COPY (SELECT DISTINCT {names} FROM read_json({_text(lines)},"  # noqa: S608
                f" format = 'newline_delimited', columns = {{{typed}}}) ORDER BY ALL)"
                f" TO {_text(path)} (FORMAT parquet, COMPRESSION zstd)"
            ).fetchone()
    except (OSError, duckdb.Error) as error:
        raise UserError(f"{path} cannot be written: {str(error).splitlines()[0]}") from None
    finally:
        lines.unlink(missing_ok=True)
    return int(written[0]) if written else 0


class Tables:
    """Questions in SQL to the files below `directory`.

    `files` names a table for each file, with the columns it has and their types. A file that isn't
    there is an empty table, so that no question fails for the lack of it.
    """

    def __init__(
        self, directory: Path, files: Mapping[str, tuple[Path, Mapping[str, str]]]
    ) -> None:
        import duckdb

        self._connection = duckdb.connect()
        self._error = duckdb.Error
        for name, (path, columns) in files.items():
            self.ask(f"CREATE TABLE {name} AS {_source(directory / path, columns)}")

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows; raises UserError for a question that isn't one."""
        return self.table(sql)[1]

    def table(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The names of the columns, and the rows; raises UserError."""
        try:
            answer = self._connection.execute(sql)
            names = [str(column[0]) for column in answer.description or ()]
            return names, answer.fetchall()
        except self._error as error:
            raise UserError(f"{sql!r}: {str(error).splitlines()[0]}") from None

    def value(self, sql: str) -> Any:
        """The first column of the only row."""
        return self.ask(sql)[0][0]

    def seal(self) -> None:
        """From now on questions reach these tables alone: no file, no network, no setting."""
        self.ask("SET enable_external_access = false")
        self.ask("SET lock_configuration = true")


def _source(path: Path, columns: Mapping[str, str]) -> str:
    if not path.exists():
        nothing = ", ".join(f"NULL::{kind} AS {name}" for name, kind in columns.items())
        return f"SELECT {nothing} WHERE false"
    if path.suffix == ".parquet":
        return f"FROM read_parquet({_text(path)})"
    typed = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
    read = f"read_json({_text(path)}, format = 'newline_delimited', columns = {{{typed}}}"
    if not _is_torn(path):
        return f"FROM {read})"
    # A line without an end was being written when the run was killed: a row of nothing.
    return f"FROM {read}, ignore_errors = true) WHERE {next(iter(columns))} IS NOT NULL"


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        if not file.tell():
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _text(path: Path) -> str:
    """As SQL writes a text."""
    return "'" + str(path).replace("'", "''") + "'"
