"""The fingerprint of a model: what its streams' states are tied to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np


def fingerprint(settings: dict, weights: Iterable[np.ndarray]) -> str:
    """The first 16 digits of the SHA-256 of a model: its settings as JSON and its weights, in order.

    Args:
      settings: the asset of an export, without a fingerprint.
      weights: of all its parts, in the order of their layers.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for weight in weights:
        weight = np.ascontiguousarray(weight)
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(weight.tobytes())
    return digest.hexdigest()[:16]
