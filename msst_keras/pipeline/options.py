"""The options of how clips are read."""

from __future__ import annotations

import dataclasses

from msst_keras.options import option


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How clips vary. The whole clip shares one draw; the paper names none: flip and crop are its field's usual two."""

    flip: bool = option("Mirror half of the clips.", True)
    # 0.7 because salient objects are often large and touch the border: smaller crops lose them.
    min_scale: float = option("Smallest random crop, as a share of the side.", 0.7, low=0.1, high=1.0)
    color_jitter: float = option(
        "Change brightness, contrast and saturation of a clip by up to this share.", 0.0, low=0, high=0.99
    )
    # A network that has met missing motion does not fall apart where flow is wrong; 0 is the paper. Each frame before
    # the last is without motion by even chance.
    missing_motion: float = option(
        "Share of clips whose last frame, and some before it, are shown without motion.", 0.0, low=0, high=0.99
    )
    # Which way an object moves says nothing of its salience.
    turn_motion: bool = option("Turn flow as an image by a random angle.", False)

    def __post_init__(self):
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"min_scale must lie in (0, 1], not {self.min_scale}")
        for name in ("color_jitter", "missing_motion"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
