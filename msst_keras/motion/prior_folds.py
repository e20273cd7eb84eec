"""Out-of-fold priors: classifiers of section 3.1 of which each was trained without some of the sequences.

A prior is far better on the sequences that it was fitted to than on others: on DAVIS-2016 max F .820 on 18 training
sequences that it had seen and .701 on the 9 held out. A network that is trained on records with such a prior learns to
trust it more than it can be trusted in use. So `msst train_prior --folds=N` deals the sequences into N folds and trains
N more classifiers, each without one of them; a sequence's records then get the prior of the one that did not see it.

One file holds all of it. PRIOR.keras is the prior that was fitted to all sequences, as without folds, and whoever loads
it, `msst export` or Keras, gets that one: it is for new videos. The same archive also holds

    folds/folds.json    {"num_folds": N, "sequences": {NAME: number of its fold}}
    folds/0.npz         what was trained without fold 0: one array per trainable variable of the prior, in order
    folds/1.npz ...

It is one file because records, runs and models name their prior by its hash: records to train on and to validate on
agree in it, although their maps are of different classifiers. A backbone that was not trained is stored once.

A sequence is known by its name, whatever folder its records are in and however its frames are encoded: all of its
frames, and their mirror images, are in one fold. Where two datasets have a sequence of one name each, both get the
prior that saw neither, which is the safe side to err on. One that was not trained on gets the prior of all.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msst_keras.motion.prior import MotionPrior

_INDEX, _WEIGHTS = "folds/folds.json", "folds/{}.npz"
# What reading a damaged archive, JSON file or array raises.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, ValueError, TypeError, IndexError, AttributeError
)  # fmt: skip


class PriorFolds:
    """The classifiers of the folds behind a prior, which takes the weights of the one that a sequence calls for.

    Attributes:
        sequences: Name of each sequence that was trained on -> number of its fold.
    """

    def __init__(self, prior: MotionPrior, sequences: Mapping[str, int], weights: Sequence[Sequence[np.ndarray]]):
        """Takes a prior as it was fitted to all sequences, and the folds' trained weights (of `trained_weights`)."""
        self.sequences = dict(sequences)
        self._variables = prior.trainable_variables
        self._weights, self._whole = weights, trained_weights(prior)
        self._used: int | None = None

    def use(self, sequence: str | None) -> None:
        """Gives the prior the weights that did not see a sequence; those of all for None and for a new sequence."""
        fold = None if sequence is None else self.sequences.get(sequence)
        if fold == self._used:
            return
        for variable, array in zip(self._variables, self._whole if fold is None else self._weights[fold], strict=True):
            variable.assign(array)
        self._used = fold


def trained_weights(prior: MotionPrior) -> list[np.ndarray]:
    """What training changes in a prior: its trainable variables, in order."""
    return [np.array(variable) for variable in prior.trainable_variables]


def deal_sequences(lengths: Mapping[str, int], num_folds: int) -> dict[str, int]:
    """Deals sequences into folds of about the same number of frames.

    The longest first, each to the fold that has fewest frames so far; the same names and lengths give the same folds,
    in whatever order they come.

    Args:
        lengths: Name of each sequence -> its labelled frames.
        num_folds: 2 or more.

    Returns:
        Name of each sequence -> number of its fold.

    Raises:
        ValueError: fewer folds than two, or fewer sequences than folds.
    """
    if num_folds < 2:
        raise ValueError(f"a prior needs two folds or more, or none, not {num_folds}")
    if len(lengths) < num_folds:
        raise ValueError(f"{num_folds} folds need as many sequences with labels, found {len(lengths)}")
    loads, folds = [0] * num_folds, {}
    for name in sorted(lengths, key=lambda name: (-lengths[name], name)):
        folds[name] = loads.index(min(loads))
        loads[folds[name]] += lengths[name]
    return dict(sorted(folds.items()))


def add_folds(path: str | Path, sequences: Mapping[str, int], weights: Sequence[Sequence[np.ndarray]]) -> None:
    """Adds folds to the file of a saved prior.

    Args:
        path: Of the file, which has none yet.
        sequences: Name of each sequence -> number of its fold.
        weights: Of each fold, the trained weights of the prior that did not see it (`trained_weights`).
    """
    with zipfile.ZipFile(path, "a") as archive:
        # By a ZipInfo, which has no date: the same folds are the same bytes, as `prior_files.save_prior` says why.
        index = json.dumps({"num_folds": len(weights), "sequences": dict(sequences)})
        archive.writestr(zipfile.ZipInfo(_INDEX), index)
        for number, arrays in enumerate(weights):
            buffer = io.BytesIO()
            members: dict[str, Any] = {str(index): array for index, array in enumerate(arrays)}
            np.savez(buffer, **members)
            archive.writestr(zipfile.ZipInfo(_WEIGHTS.format(number)), buffer.getvalue())


def load_folds(path: str | Path, prior: MotionPrior) -> PriorFolds | None:
    """The folds of a prior's file; None where it has none.

    Args:
        path: Of the file.
        prior: That `prior_files.load_prior` loaded from it.

    Raises:
        ValueError: The folds are damaged.
    """
    shapes = [tuple(variable.shape) for variable in prior.trainable_variables]
    try:
        with zipfile.ZipFile(path) as archive:
            if _INDEX not in archive.namelist():
                return None
            index = json.loads(archive.read(_INDEX))
            weights = []
            for number in range(index["num_folds"]):
                with np.load(io.BytesIO(archive.read(_WEIGHTS.format(number)))) as arrays:
                    weights.append([arrays[str(place)] for place in range(len(shapes))])
            sequences = {str(name): range(len(weights))[fold] for name, fold in index["sequences"].items()}
        right = all([array.shape for array in arrays] == shapes for arrays in weights)
    except _DAMAGE as error:
        raise ValueError(f"{path}: its folds are damaged ({error}); train the prior again") from error
    if not right:
        raise ValueError(f"{path}: its folds are of another network than its prior; train the prior again")
    return PriorFolds(prior, sequences, weights)
