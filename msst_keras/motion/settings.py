"""What is computed from the motion of a video's frames: flow, superpixels and the prior that are made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras

from msst_keras.files import hash_file
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.prior import UNTRAINED_PRIORS, count_channels, load_prior
from msst_keras.motion.superpixels import SuperpixelSettings

# "flow": flow itself as an image of three channels (see `flow_image`), in place of a map of one.
# "files": maps that somebody else's method made.
NO_PRIOR, MAGNITUDE, FLOW, FILES = "none", "magnitude", "flow", "files"


@dataclasses.dataclass(frozen=True)
class MotionOptions:
    """What is computed from the frames' motion and stored. It can be pickled: each worker loads the prior itself.

    Attributes:
      flow: how flow is made.
      superpixels: how superpixels are; None when the prior needs none.
      prior: NO_PRIOR, MAGNITUDE, FLOW, FILES, or a file of `msst train_prior`, whose settings `flow` and `superpixels`
        then are.
      store_flow: whether the flow is stored too.
      flow_dir: where the flow is read from when its method is "files" (see `data.flow_files`).
      prior_dir: where the prior is read from when it is FILES: PRIOR_DIR/SEQUENCE/FRAME.png, 8-bit grey, of any size.
    """

    flow: FlowSettings
    superpixels: SuperpixelSettings | None = None
    prior: str = NO_PRIOR
    store_flow: bool = False
    flow_dir: str | Path | None = None
    prior_dir: str | Path | None = None

    def to_dict(self) -> dict:
        """The manifest's "motion"; a prior's file goes into it by its hash."""
        prior = {"kind": self.prior}
        if count_channels(self.prior) > 1:
            prior["channels"] = count_channels(self.prior)
        if self.prior not in (NO_PRIOR, FILES, *UNTRAINED_PRIORS):
            prior = {"kind": "network", "sha256": hash_file(self.prior)}
        return {
            "flow": self.flow.to_dict(),
            "superpixels": self.superpixels.to_dict() if self.superpixels else None,
            "prior": prior,
            "flow_stored": self.store_flow,
        }

    def load_prior(self) -> keras.Model | None:
        """The prior's model, None for NO_PRIOR and FILES.

        Raises:
          FileNotFoundError, ValueError: see `motion.prior.load_prior`.
        """
        if self.prior in (NO_PRIOR, FILES):
            return None
        if self.prior in UNTRAINED_PRIORS:
            return UNTRAINED_PRIORS[self.prior](self.flow)
        return load_prior(self.prior)
