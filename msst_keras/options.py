"""Options: dataclasses whose fields say their default, their choices or range, and in one sentence what they are for.

Each option is defined once, in the dataclass that it belongs to. Python code gives it a value, `tools/_flags.py` makes
a flag of the same name from it, and `write_flags` writes it as one would type it. Dataclasses of options may hold
others.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import numbers
import re
import typing
from collections.abc import Collection, Iterable, Iterator, Sequence

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

# An image size, (height, width), which is typed as HEIGHTxWIDTH in a flag.
Size = typing.Annotated[tuple[int, int], "HEIGHTxWIDTH"]

# Texts that are a path and more; see `path_in`.
PAIR, SHARE = "NAME:DIR", "FOLDER:SHARE"

# Types, what a value of each must be an instance of, and the same in words.
_SIMPLE_TYPES = (
    (str, str, "a text"),
    (bool, bool, "True or False"),
    (int, numbers.Integral, "a whole number"),
    (float, numbers.Real, "a number"),
)


def option(
    help: str,
    default: object = dataclasses.MISSING,
    *,
    choices: Sequence[object] | None = None,
    low: float | None = None,
    high: float | None = None,
    syntax: str | None = None,
    remembered: bool = True,
) -> typing.Any:
    """A field of a dataclass of options.

    Args:
      help: what it is for, in one sentence or a few.
      default: its value if none is given. An option without a default must be given.
      choices: the values that it, or each part of a tuple, may have.
      low, high: the range of a number, both ends included.
      syntax: how a pair of numbers is typed, with an example; of texts with a path in them PAIR or SHARE.
      remembered: whether a result folder remembers the value, see `remembered_values`. False where no result depends
        on it, and where the content of what it names is remembered in its place.
    """
    said = {
        "help": help, "choices": choices, "low": low, "high": high, "syntax": syntax, "remembered": remembered
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=said)


def options_of(kind: type, prefix: str = "") -> typing.Any:
    """A field that holds another dataclass of options; its default is that dataclass with all its defaults.

    Args:
      kind: the dataclass.
      prefix: what the names of its flags begin with.
    """
    return dataclasses.field(default_factory=kind, metadata={"prefix": prefix})


def check_options(options: DataclassInstance) -> None:
    """Compares a dataclass's values with what its fields say; `__post_init__` calls it.

    Raises:
      ValueError: a value is wrong; the message names the option, what it must be and what it is.
    """
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        value, said = getattr(options, field.name), field.metadata
        if "help" not in said or (value is None and type(None) in typing.get_args(hints[field.name])):
            continue
        if value is None:  # a file may say null
            raise ValueError(f"{field.name} must have a value, not None")
        if wrong := _find_type_error(value, _without_none(hints[field.name])):
            raise ValueError(f"{field.name} must be {wrong}, not {value!r}")
        if field.default is dataclasses.MISSING and value in ("", (), []):  # of a variable of the shell that is not set
            raise ValueError(f"{field.name} is empty; give a value")
        if isinstance(value, tuple | list) and "" in value:  # as a path that would be the current folder
            raise ValueError(f"{field.name} has an empty part ({', '.join(map(repr, value))}); take it out")
        if said["choices"] and not isinstance(value, tuple) and value not in said["choices"]:
            raise ValueError(f"{field.name} must be one of {', '.join(map(str, said['choices']))}, not {value!r}")
        if said["low"] is not None and not value >= said["low"]:
            raise ValueError(f"{field.name} must be {said['low']} or more, not {value!r}")
        if said["high"] is not None and not value <= said["high"]:
            raise ValueError(f"{field.name} must be {said['high']} or less, not {value!r}")


def _find_type_error(value: object, kind: object) -> str:
    """What a value of this type must be, if the value is something else; "" if the value is right."""
    if typing.get_origin(kind) is tuple:
        texts = typing.get_args(kind)[0] is str
        right = isinstance(value, tuple | list) and (not texts or all(isinstance(part, str) for part in value))
        return "" if right else f"a tuple of {'texts' if texts else 'values'}"
    for known, wanted, words in _SIMPLE_TYPES:
        if kind is known:
            right = isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))
            return "" if right else words
    return ""


def path_in(text: str, syntax: str | None) -> tuple[str, str, str]:
    """Splits a text of an option into what stands before its path, the path, and what stands behind it."""
    if syntax == PAIR:
        name, colon, path = text.partition(":")
        return name + colon, path, ""
    match = re.fullmatch(r"(.+)(:[0-9.e+-]+)", text, re.DOTALL) if syntax == SHARE else None
    return ("", match[1], match[2]) if match else ("", text, "")


def list_options(
    options: DataclassInstance | type[DataclassInstance], prefix: str = ""
) -> Iterator[tuple[str, dataclasses.Field[typing.Any], object, typing.Any]]:
    """Yields (flag's name, field, type, value) of every option; a dataclass's own come before those of others in it.

    The type of an option that may be None is given without the None.

    Args:
      options: a dataclass of options, or its class, which has no values: they are given as None.
      prefix: what the names begin with.
    """
    kind = options if isinstance(options, type) else type(options)
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if "help" in field.metadata:
            value = None if options is kind else getattr(options, field.name)
            yield prefix + field.name, field, _without_none(hints[field.name]), value
    for field in dataclasses.fields(kind):
        if "prefix" in field.metadata:
            inner = hints[field.name] if options is kind else getattr(options, field.name)
            yield from list_options(inner, field.metadata["prefix"])


def _without_none(hint: object) -> object:
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    return kinds[0] if type(None) in typing.get_args(hint) and len(kinds) == 1 else hint


def write_flags(options: DataclassInstance, leave_out: Collection[str] = ()) -> str:
    """Writes the options as a flagfile that gives the same options: lines --name=value, sorted by name."""
    lines = []
    for name, _, kind, value in sorted(list_options(options), key=lambda found: found[0]):
        if value is None or name in leave_out:
            continue
        if isinstance(value, bool):
            lines.append(f"--{name}" if value else f"--no{name}")
        else:
            lines.append(f"--{name}={_write(value, kind)}")
    return "".join(line + "\n" for line in lines)


def plain_values(options: DataclassInstance) -> dict[str, bool | int | float | str]:
    """The options by their flags' names: numbers and switches as they are, everything else as one would type it."""
    values: dict[str, bool | int | float | str] = {}
    for name, field, kind, value in sorted(list_options(options), key=lambda found: found[0]):
        if value is not None:
            is_plain = kind in (bool, int, float) and not field.metadata["choices"]
            values[name] = value if is_plain else _write(value, kind)
    return values


def remembered_values(options: DataclassInstance) -> dict[str, bool | int | float | str]:
    """The values of `plain_values` that a result depends on, so that it can only be continued with the same ones."""
    values, passed_over = plain_values(options), set(list_passed_over(options))
    return {name: value for name, value in values.items() if name not in passed_over}


def list_passed_over(options: DataclassInstance | type[DataclassInstance]) -> list[str]:
    """The names of the options that are not remembered."""
    return [name for name, field, *_ in list_options(options) if not field.metadata["remembered"]]


def _write(value: object, kind: object) -> str:
    """Writes a value as one types it: a size as HEIGHTxWIDTH, several values with commas between them."""
    if not isinstance(value, tuple | list):
        return str(value)
    if kind in (Size, tuple[Size, ...]):
        return ",".join(f"{height}x{width}" for height, width in ([value] if kind == Size else value))
    return join_values(value)


def join_values(values: Iterable[object]) -> str:
    """Several values as one types them in a flag: with commas between them, and in quotes where one has a comma."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(map(str, values))
    return text.getvalue()
