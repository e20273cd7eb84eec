"""The options of how clips are read, and of serving them to other machines."""

from __future__ import annotations

import dataclasses

from msst_keras.options import check_options, option


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


@dataclasses.dataclass(frozen=True)
class ServeDataOptions:
    """What to serve, and where."""

    port: int = option("To listen on; 0 takes a free one.", 5050, low=0, high=65535)
    dispatcher: str | None = option("HOST:PORT of the dispatcher; without it this is the dispatcher.", None)
    host: str | None = option("Name by which others reach this worker; by default the machine's own.", None)
    # The service runs whatever computation a client sends, and that may read and write files.
    listen: str = option(
        "Who may connect: this machine alone, or all that reach the port. Whoever may connect can read and write every "
        "file that the user of this program can: all is for a network on which you trust everybody.",
        "loopback",
        choices=("loopback", "all"),
    )

    def __post_init__(self):
        check_options(self)
