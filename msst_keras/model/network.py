"""What every backbone has: a function that builds it, one that loads weights, and its strides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras


@dataclasses.dataclass(frozen=True)
class Network:
    """A backbone as its module describes it.

    Attributes:
        build: Builds it without weights, see `backbones.build_backbone`.
        load: Loads pre-trained weights into such a model: "imagenet" or a file.
        middle_stride: Pixels per cell of the middle output; None where that is the last output's.
    """

    build: Callable[..., keras.Model]
    load: Callable[[keras.Model, str], None]
    middle_stride: int | None = 8
