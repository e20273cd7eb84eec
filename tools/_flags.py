"""Defines flags from the options of jobs: each takes an option's name, type, default, choices, range and help."""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from msst_keras import cli
from msst_keras.options import Size, list_options, path_in

flags.disclaim_key_flags()  # a flag defined here belongs to the job that asks for it

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = typing.TypeVar("T", bound="DataclassInstance")
Sizes = tuple[tuple[int, int], ...]
_SIZE = re.compile(r"([1-9]\d*)x([1-9]\d*)")


class _SizesParser(flags.ArgumentParser):
    """Reads HEIGHTxWIDTH,HEIGHTxWIDTH,... as ((height, width), ...)."""

    syntactic_help = "HEIGHTxWIDTH[,HEIGHTxWIDTH...]"

    def parse(self, argument: Any) -> Any:
        return self.read(argument) if isinstance(argument, str) else argument

    def read(self, text: str) -> Sizes:
        matches = [match for part in text.split(",") if (match := _SIZE.fullmatch(part))]
        if len(matches) <= text.count(","):
            raise ValueError(f"must be {self.syntactic_help} in pixels, such as 240x432, not '{text}'")
        return tuple((int(match[1]), int(match[2])) for match in matches)

    def flag_type(self) -> str:
        return "sizes"


class _SizeParser(_SizesParser):
    """Reads HEIGHTxWIDTH as (height, width)."""

    syntactic_help = "HEIGHTxWIDTH"

    def parse(self, argument: Any) -> Any:
        if not isinstance(argument, str):
            return argument
        sizes = self.read(argument)
        if len(sizes) > 1:
            raise ValueError(f"must be one {self.syntactic_help}, not '{argument}'")
        return sizes[0]

    def flag_type(self) -> str:
        return "size"


class _SizesSerializer(flags.ArgumentSerializer):
    def serialize(self, value: Any) -> str:
        sizes = value if isinstance(value[0], tuple) else (value,)
        return ",".join(f"{height}x{width}" for height, width in sizes)


class _TextParser(flags.ArgumentParser):
    """A text, in which a ~ at the start is the home folder: after `=` a shell leaves it as it is."""

    def parse(self, argument: str) -> str:
        return _at_home(argument)


class _TextsParser(flags.ListParser):
    """Texts with commas between them; a path that is there is one, whatever commas it has.

    Args:
      syntax: of one text, which may hold more than a path; see `msst_keras.options.path_in`.
    """

    def __init__(self, syntax: str | None = None):
        super().__init__()
        self._syntax = syntax

    def parse(self, argument: str | list[str]) -> list[str]:
        if isinstance(argument, str) and "," in argument:
            before, path, _ = path_in(argument, self._syntax)
            if "," not in before and any(os.path.exists(_at_home(each)) for each in (argument, path) if each):
                return [self._read(argument)]
        return [self._read(text) for text in super().parse(argument)]

    def _read(self, text: str) -> str:
        before, path, behind = path_in(text, self._syntax)
        return before + _at_home(path) + behind


def _at_home(text: str) -> str:
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def define_flags(options: type[T]) -> Callable[[], T]:
    """Defines a flag for each option of a dataclass and of those that it holds, in their order.

    Args:
      options: the dataclass; see `msst_keras.options`.

    Returns:
      a function that makes the options of the flags' values, once the flags are parsed.
    """
    readers = {name: _define(name, field, kind) for name, field, kind, _ in list_options(options)}
    for heading, names in _group(options):
        cli.set_heading(heading, names)
    return lambda: _fill(options, {name: read() for name, read in readers.items()})


def _define(name: str, field: dataclasses.Field[Any], kind: object) -> Callable[[], object]:
    """Defines the flag of one option; returns what reads its value."""
    is_required = field.default is dataclasses.MISSING
    flag = _define_flag(name, kind, None if is_required else field.default, field.metadata)
    if is_required:
        flags.mark_flag_as_required(name)
    read: Callable[[Any], object]
    if kind == tuple[str, ...]:
        read = tuple
    elif kind == tuple[int, int]:
        read = _read_pair(name, field.metadata["syntax"])
    elif kind is int and field.metadata["choices"]:
        read = int
    else:
        return lambda: flag.value
    return lambda: None if flag.value is None else read(flag.value)


def _define_flag(name: str, kind: object, default: Any, said: Mapping[str, Any]) -> flags.FlagHolder:
    """Defines a flag of the option's type; `said` is what the option says of itself."""
    help, choices = said["help"], said["choices"]
    if kind is bool:
        return flags.DEFINE_bool(name, default, help)
    if kind is int and not choices:
        return flags.DEFINE_integer(name, default, help, said["low"], said["high"])
    if kind is float:
        return flags.DEFINE_float(name, default, help, said["low"], said["high"])
    if kind in (Size, tuple[Size, ...]):
        parser = _SizeParser() if kind == Size else _SizesParser()
        return flags.DEFINE(parser, name, default, help, serializer=_SizesSerializer())
    if kind == tuple[str, ...]:
        texts = None if default is None else list(default)
        return flags.DEFINE(_TextsParser(said["syntax"]), name, texts, help, serializer=flags.CsvListSerializer(","))
    if kind == tuple[int, int]:
        return flags.DEFINE_list(name, None if default is None else list(default), help)
    if choices:  # texts, or a few numbers
        return flags.DEFINE_enum(name, None if default is None else str(default), list(map(str, choices)), help)
    # A text, also for a number that may be a word.
    return flags.DEFINE(_TextParser(), name, default, help, serializer=flags.ArgumentSerializer())


def _read_pair(name: str, syntax: str | None) -> Callable[[list[str]], tuple[int, int]]:
    def read(texts: list[str]) -> tuple[int, int]:
        if len(texts) != 2 or not all(text.isdecimal() for text in texts):
            raise ValueError(f"--{name} must be {syntax}, not {','.join(texts)}")
        return int(texts[0]), int(texts[1])

    return read


def _group(options: type[DataclassInstance], prefix: str = "") -> list[tuple[str, list[str]]]:
    """(heading, names of flags) of a dataclass and of those in it. The heading is the docstring's first sentence."""
    hints = typing.get_type_hints(options)
    own = [prefix + field.name for field in dataclasses.fields(options) if "help" in field.metadata]
    groups = [((options.__doc__ or "").strip().partition(".")[0].partition(";")[0], own)]
    for field in dataclasses.fields(options):
        if "prefix" in field.metadata:
            groups += _group(hints[field.name], field.metadata["prefix"])
    return groups


def _fill(options: type[T], values: dict[str, object], prefix: str = "") -> T:
    """Makes the dataclass, and those in it, of the flags' values by name."""
    hints, given = typing.get_type_hints(options), {}
    for field in dataclasses.fields(options):
        if "help" in field.metadata:
            given[field.name] = values[prefix + field.name]
        elif "prefix" in field.metadata:
            given[field.name] = _fill(hints[field.name], values, field.metadata["prefix"])
    return options(**given)
