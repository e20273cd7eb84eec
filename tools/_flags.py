"""Kinds of flags that several jobs have."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from absl import flags

flags.disclaim_key_flags()  # a flag defined here belongs to the job that asks for it

# Of msst_keras.model.backbones, whose import takes seconds that --helpshort should not.
BACKBONES = (
    "vgg16", "resnet50v2", "resnet50v2_keras", "mobilenetv2", "efficientnet_lite0", "efficientnet_lite2"
)  # fmt: skip

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


def define_crf() -> Callable[[], tuple]:
    """The flags of the dense CRF; the function it returns gives their `CrfOptions` and backend once they are parsed."""
    from msst_keras.inference.crf import BACKENDS, CRF_PRESETS, UNARIES, CrfOptions

    preset = flags.DEFINE_enum(
        "crf_preset", "pdb", list(CRF_PRESETS), "Settings of the CRF, named after their source; tuned: for blurry maps."
    )
    backend = flags.DEFINE_enum("crf_backend", "numpy", BACKENDS, "Code of the CRF; their maps agree to 1e-4.")
    overrides = {  # one setting each, in place of the preset's
        "iterations": flags.DEFINE_integer("crf_iterations", None, "Mean-field updates. By default the preset's.", 1),
        "unary": flags.DEFINE_enum("crf_unary", None, UNARIES, "How values become energies. By default the preset's."),
    }
    for name, help in (
        ("gaussian_sxy", "Standard deviation of the spatial kernel, pixels."),
        ("gaussian_compat", "Weight of the spatial kernel."),
        ("bilateral_sxy", "Standard deviation of the bilateral kernel in space, pixels."),
        ("bilateral_srgb", "And in colour, grey levels of 0 to 255."),
        ("bilateral_compat", "Weight of the bilateral kernel."),
    ):
        overrides[name] = flags.DEFINE_float(f"crf_{name}", None, f"{help} By default the preset's.", lower_bound=0)

    def read() -> tuple[CrfOptions, str]:
        given = {name: flag.value for name, flag in overrides.items() if flag.value is not None}
        return dataclasses.replace(CRF_PRESETS[preset.value], **given), backend.value

    return read
