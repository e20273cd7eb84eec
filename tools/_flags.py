"""Kinds of flags that several jobs have."""

from __future__ import annotations

import re

from absl import flags

flags.disclaim_key_flags()  # a flag defined here belongs to the job that asks for it

_SIZE = re.compile(r"([1-9]\d*)x([1-9]\d*)")


class _SizesParser(flags.ArgumentParser):
    """HEIGHTxWIDTH,HEIGHTxWIDTH,... to ((height, width), ...)."""

    syntactic_help = "HEIGHTxWIDTH[,HEIGHTxWIDTH...]"

    def parse(self, argument):
        if not isinstance(argument, str):
            return argument
        matches = [_SIZE.fullmatch(part) for part in argument.split(",")]
        if None in matches:
            raise ValueError(f"must be {self.syntactic_help} in pixels, such as 240x432, not '{argument}'")
        return tuple((int(match[1]), int(match[2])) for match in matches)

    def flag_type(self):
        return "sizes"


class _SizeParser(_SizesParser):
    """HEIGHTxWIDTH to (height, width)."""

    syntactic_help = "HEIGHTxWIDTH"

    def parse(self, argument):
        sizes = super().parse(argument)
        if not isinstance(argument, str):
            return argument
        if len(sizes) > 1:
            raise ValueError(f"must be one {self.syntactic_help}, not '{argument}'")
        return sizes[0]

    def flag_type(self):
        return "size"


class _SizesSerializer(flags.ArgumentSerializer):
    def serialize(self, value):
        sizes = value if isinstance(value[0], tuple) else (value,)
        return ",".join(f"{height}x{width}" for height, width in sizes)


def define_size(name: str, default: str, help: str) -> flags.FlagHolder:
    """A flag of one image size, (height, width)."""
    return flags.DEFINE(_SizeParser(), name, default, help, serializer=_SizesSerializer())


def define_sizes(name: str, default: str, help: str) -> flags.FlagHolder:
    """A flag of one or more image sizes, ((height, width), ...)."""
    return flags.DEFINE(_SizesParser(), name, default, help, serializer=_SizesSerializer())
