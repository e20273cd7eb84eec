"""The options of how clips are read, and of serving them to other machines."""

from __future__ import annotations

import dataclasses

from msst_keras.options import check_options, option


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How clips vary. One draw holds for a whole clip. The paper names no augmentation; flip and crop are usual."""

    flip: bool = option("Mirror half of the clips.", True)
    # 0.7, because salient objects are often large and touch the border, and smaller crops lose them.
    min_scale: float = option(
        "The side of the smallest random crop, as a share of the frame's side.", 0.7, low=0.1, high=1.0
    )
    color_jitter: float = option(
        "Change brightness, contrast and saturation of a clip by up to this share.", 0.0, low=0, high=0.99
    )
    # A network that was trained with missing motion does not fail where flow is wrong; 0 is the paper. Each frame
    # before the last is without motion by even chance.
    missing_motion: float = option(
        "The share of clips whose last frame, and perhaps some frames before it, are shown without motion.",
        0.0,
        low=0,
        high=0.99,
    )
    # The direction in which an object moves says nothing about its salience.
    turn_motion: bool = option(
        "Turn the directions of the flow by a random angle; it is for --motion_input=flow.", False
    )

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"min_scale must lie in (0, 1], not {self.min_scale}")
        for name in ("color_jitter", "missing_motion"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class ServeDataOptions:
    """What to serve, and where."""

    port: int = option("The port to listen on. 0 takes a free one.", 5050, low=0, high=65535)
    dispatcher: str | None = option(
        "The address of the dispatcher, HOST:PORT. Without it, this process is the dispatcher; with it, it is a "
        "worker.",
        None,
    )
    host: str | None = option(
        "The name under which others reach this worker. By default it is the machine's own name.", None
    )
    # The service runs whatever computation a client sends, and that may read and write files.
    listen: str = option(
        "Who may connect: this machine alone (loopback), or all that reach the port. Whoever may connect can read and "
        "write every file that the user of this program can, so all is for a network on which you trust everybody.",
        "loopback",
        choices=("loopback", "all"),
    )

    def __post_init__(self) -> None:
        check_options(self)
