"""How the motion of a video's frames is made, as records, runs and exported models say it, and as it is asked for.

Nothing here imports Keras or TensorFlow; `prior_files.make_prior` makes the prior that settings name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from msst_keras.files import hash_file
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.superpixels import SuperpixelSettings

# Kinds of prior. MAGNITUDE is the flow's residual magnitude, FLOW is the flow itself as an image (see `flow_image`),
# and NETWORK is a file of `msst train_prior`. FILES are maps that another method made.
NO_PRIOR, MAGNITUDE, FLOW, NETWORK, FILES = "none", "magnitude", "flow", "network", "files"
UNTRAINED = (MAGNITUDE, FLOW)
_KINDS = (NO_PRIOR, *UNTRAINED, NETWORK, FILES)
_CHANNELS = {FLOW: 3}  # the others have 1
# The largest share of a map that may come from the maps before it; with more a map would hardly change.
MAX_TEMPORAL_SHARE = 0.9
# What may be added to the logits of a model's maps, up or down; with more, every map would be black or white.
MAX_LOGIT_SHIFT = 10.0
# Of the levels 0 to 255 of flow as an image: the level of no motion, and the number of levels from there to full scale.
ZERO_LEVEL, LEVELS = 128, 127

# Settings of flow that do not matter for flow as an image. It is scaled map by map, so flow that spans more frames, or
# leads backward, differs no more than other videos do. A frame seen in several such ways even teaches more.
SCALED_AWAY = ("direction", "stride")


@dataclasses.dataclass(frozen=True)
class PriorSettings:
    """Which motion prior.

    Attributes:
        kind: One of NO_PRIOR, MAGNITUDE, FLOW, NETWORK and FILES.
        sha256: Hash of the file of a NETWORK; None for the other kinds.
    """

    kind: str
    sha256: str | None = None

    @property
    def channels(self) -> int:
        """How many channels its maps have."""
        return _CHANNELS.get(self.kind, 1)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values."""
        settings: dict[str, Any] = {"kind": self.kind}
        if self.channels > 1:
            settings["channels"] = self.channels
        if self.sha256 is not None:
            settings["sha256"] = self.sha256
        return settings


@dataclasses.dataclass(frozen=True)
class MotionSettings:
    """How motion was made: the "motion" of a manifest, of run.json and of a SavedModel's asset.

    Attributes:
        flow: How flow was made, as `FlowSettings.to_dict` writes it. It is kept as it was written, because records may
            hold flow that this program cannot make; `flow_settings` reads it.
        superpixels: How superpixels were made, as `SuperpixelSettings.to_dict` writes it; None if there are none.
        prior: Which prior was computed from them.
        flow_stored: Whether records hold the flow too; None for a run or a model, which have no records.
    """

    flow: dict[str, Any]
    superpixels: dict[str, Any] | None
    prior: PriorSettings
    flow_stored: bool | None = None

    @classmethod
    def from_dict(cls, settings: object) -> MotionSettings:
        """The inverse of `to_dict`.

        Raises:
            ValueError: A setting is missing or of the wrong type, or there is no such prior.
        """
        if not (
            isinstance(settings, dict)
            and isinstance(settings.get("flow"), dict)
            and isinstance(settings.get("superpixels", ""), dict | None)
            and isinstance(settings.get("prior"), dict)
            and settings["prior"].get("kind") in _KINDS
            and isinstance(settings["prior"].get("sha256"), str | None)
            and isinstance(settings.get("flow_stored"), bool | None)
        ):
            raise ValueError(
                f"expected motion settings (flow, superpixels, prior of the kind {' or '.join(_KINDS)}, flow_stored), "
                f"found {_shorten(settings)}"
            )
        prior = PriorSettings(settings["prior"]["kind"], settings["prior"].get("sha256"))
        return cls(settings["flow"], settings["superpixels"], prior, settings.get("flow_stored"))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values."""
        settings = {"flow": self.flow, "superpixels": self.superpixels, "prior": self.prior.to_dict()}
        return settings if self.flow_stored is None else {**settings, "flow_stored": self.flow_stored}

    @property
    def flow_settings(self) -> FlowSettings:
        """How flow is made.

        Raises:
            ValueError: This program cannot make such flow.
        """
        return FlowSettings.from_dict(self.flow)

    @property
    def superpixel_settings(self) -> SuperpixelSettings | None:
        """How superpixels are made; None if there are none.

        Raises:
            ValueError: This program cannot make such superpixels.
        """
        return None if self.superpixels is None else SuperpixelSettings.from_dict(self.superpixels)

    def differences(self, other: MotionSettings, parts: Collection[str] = ("flow", "superpixels", "prior")) -> str:
        """How other settings differ from these, in words for a sentence; "" if they do not.

        Whether flow is stored does not count, because it does not change the motion.

        Args:
            other: The settings to compare with.
            parts: Which parts to compare.
        """
        mine, others = self.to_dict(), other.to_dict()
        found = []
        for part in parts:
            first, second = mine[part] or {}, others[part] or {}
            for key in dict.fromkeys((*first, *second)):
                if first.get(key) != second.get(key):
                    found.append(f"{part} {key} {_word(second.get(key))} instead of {_word(first.get(key))}")
        return "; ".join(found)

    def without_flow(self, keys: Collection[str]) -> MotionSettings:
        """The same settings without those of flow that `keys` name, so that `differences` passes over them."""
        return dataclasses.replace(self, flow={key: value for key, value in self.flow.items() if key not in keys})


@dataclasses.dataclass(frozen=True)
class MotionOptions:
    """What is to be computed from the frames' motion and stored. It can be pickled; each worker makes the prior itself.

    Attributes:
        flow: How flow is made.
        superpixels: How superpixels are made; None if the prior needs none.
        prior: NO_PRIOR, MAGNITUDE, FLOW, FILES, or a file of `msst train_prior`, whose `flow` and `superpixels` these
            must then be.
        store_flow: Whether the flow is stored too.
        flow_dir: Where the flow is read from when its method is "files" (see `data.flow_files`).
        prior_dir: Where the prior is read from when it is FILES: PRIOR_DIR/SEQUENCE/FRAME.png, 8-bit grey, any size.
    """

    flow: FlowSettings
    superpixels: SuperpixelSettings | None = None
    prior: str = NO_PRIOR
    store_flow: bool = False
    flow_dir: str | Path | None = None
    prior_dir: str | Path | None = None

    def settings(self) -> MotionSettings:
        """The settings as records hold them, with the hash of a prior's file."""
        if self.prior in (NO_PRIOR, FILES, *UNTRAINED):
            prior = PriorSettings(self.prior)
        else:
            prior = PriorSettings(NETWORK, hash_file(self.prior))
        superpixels = self.superpixels.to_dict() if self.superpixels else None
        return MotionSettings(self.flow.to_dict(), superpixels, prior, self.store_flow)

    def to_dict(self) -> dict[str, Any]:
        """The manifest's "motion"."""
        return self.settings().to_dict()


def _shorten(settings: object) -> str:
    """What was found, in a line: of settings the prior, which may be what is wrong, comes first."""
    if isinstance(settings, dict) and "prior" in settings:
        settings = {"prior": settings["prior"], **settings}
    return repr(str(settings)[:80])


def _word(value: object) -> str:
    return "none" if value is None else str(value)
