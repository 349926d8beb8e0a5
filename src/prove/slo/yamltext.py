"""YAML whose every value knows its line, so that a complaint can name it."""

import pathlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from prove.errors import UserError

Path = tuple[int | str, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Document:
    """One document of a YAML file: its value, and the line (from 1) of every value in it."""

    name: str
    value: Any
    lines: dict[Path, int]

    def error(self, path: Path, problem: str) -> UserError:
        """`file:line: field: problem`."""
        return UserError(self._located(path, problem))

    def validate(self, model: type[Model]) -> Model:
        """The document as `model`; raises UserError with a line for each thing that is wrong."""
        try:
            return model.model_validate(self.value)
        except ValidationError as error:
            told = [self._located(each["loc"], _problem(each)) for each in error.errors()]
            raise UserError("\n".join(told)) from None

    def _located(self, path: Path, problem: str) -> str:
        known = path
        while known not in self.lines:
            known = known[:-1]
        field = f"{field_name(path)}: " if path else ""
        return f"{self.name}:{self.lines[known]}: {field}{problem}"


def field_name(path: Sequence[int | str]) -> str:
    """`slos[0].alerting.name`."""
    parts = [f"[{each}]" if isinstance(each, int) else f".{each}" for each in path]
    return "".join(parts).removeprefix(".")


def read_text(path: pathlib.Path) -> str:
    """The text of a file; raises UserError where it can't be had."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(f"{path} cannot be read: {why}") from None


def documents(text: str, name: str) -> list[Document]:
    """The documents of a file, empty ones left out; raises UserError where it isn't YAML."""
    try:
        return list(_documents(_Loader(text), name))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UserError(f"{name}:{line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{name}: not YAML: {' '.join(str(error).split())}") from None


def _documents(loader: "_Loader", name: str) -> Iterator[Document]:
    try:
        while loader.check_node() and (node := loader.get_node()):
            value = loader.construct_document(node)
            if value is not None:
                yield Document(name, value, dict(_lines(node, (), set())))
    finally:
        loader.dispose()


def dump(value: object) -> str:
    """Block style, keys in the order given, texts of several lines as blocks."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


class _Loader(yaml.SafeLoader):
    """Numbers with a fraction are Decimal; a key given twice is an error, not a surprise."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = set()
        pairs = node.value if isinstance(node, yaml.MappingNode) else []  # the parent refuses it
        for key, _ in pairs:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in keys:
                    raise yaml.constructor.ConstructorError(
                        problem=f"{key.value} is given twice", problem_mark=key.start_mark
                    )
                keys.add(key.value)
        return super().construct_mapping(node, deep)


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Decimal:
    text = str(loader.construct_scalar(node)).replace("_", "").replace(".nan", "nan")
    try:
        return Decimal(text)
    except InvalidOperation:
        raise yaml.constructor.ConstructorError(
            problem=f"{text} is not a number prove can take", problem_mark=node.start_mark
        ) from None


_Loader.add_constructor("tag:yaml.org,2002:float", _decimal)


class _Dumper(yaml.SafeDumper):
    """Lists indented below their key, as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _lines(node: yaml.Node, path: Path, seen: set[int]) -> Iterator[tuple[Path, int]]:
    yield path, node.start_mark.line + 1
    if id(node) in seen:  # an alias: it may even contain itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield (*path, key.value), key.start_mark.line + 1
                for below, line in _lines(value, (*path, key.value), seen):
                    if below != (*path, key.value):
                        yield below, line
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*path, index), seen)


def _problem(error: Any) -> str:
    kind, given = error["type"], error["input"]
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return "is not a field of this form; check its spelling and indentation"
    message = error["msg"].removeprefix("Value error, ")
    if kind == "string_type" and isinstance(given, int | Decimal):
        return f"must be text; write it in quotes ({str(given).lower()!r})"
    if kind == "value_error":
        return str(message)
    shown = str(given)
    return f"{message} (got {shown if len(shown) <= 40 else shown[:40] + '…'})"
