"""A new prior into an existing record folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msst_keras.conversion.engines import choose_engine, remove_files, run_engine
from msst_keras.conversion.sources import StoredShard
from msst_keras.conversion.work_report import WorkReport
from msst_keras.files import DifferentSettingsError, read_json, remember
from msst_keras.locks import hold_folder
from msst_keras.motion.flow import FROM_FILES
from msst_keras.motion.prior_files import load_prior
from msst_keras.motion.settings import UNTRAINED, MotionOptions, MotionSettings
from msst_keras.records.manifest import (
    COMPUTED,
    MANIFEST_NAME,
    check_manifest,
    check_motion,
    join_manifest,
    read_manifest,
    write_manifest,
)
from msst_keras.records.options import LABEL_KINDS

# What the folder is being made into, as long as it is not whole.
NEW_PRIOR_NAME = "new_prior.json"


def add_prior(
    folder: str | Path,
    prior: str,
    num_workers: int = 1,
    engine: str = "local",
    beam_args: Sequence[str] = (),
    report: WorkReport | None = None,
) -> dict:
    """Replaces the prior of a record folder; frames, masks and flow stay, byte for byte.

    The folder is then what `convert` makes of the same input with that prior. Flow is taken from the records, or made
    again from their frames. While it goes on, and after an interruption, the folder has no manifest: old and new priors
    are never read together. The same call then does the rest.

    Args:
      folder: of `convert`.
      prior: MAGNITUDE, FLOW or a file of `msst train_prior`, whose flow settings must be the folder's.
      num_workers, engine, beam_args, report: see `convert`.

    Returns:
      the manifest.

    Raises:
      FileNotFoundError: no whole record folder.
      ValueError: flow of other settings; flow that came from files and is not stored; an unfinished change to another
        prior; corrupt shards.
      BlockingIOError, ChildProcessError: see `convert`.
    """
    run = choose_engine(engine, num_workers, beam_args)
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected records of `msst make_records`")
    with hold_folder(folder):
        plan_path = folder / NEW_PRIOR_NAME
        old = _read_old(plan_path) if plan_path.exists() else read_manifest(folder)
        motion = _plan_prior(check_motion(old, folder), prior, folder)
        if old.get("stills", {}).get("flow") == "exact" and not motion.store_flow:
            raise ValueError(
                f"{folder}: the exact flow of stills in motion is not stored; make the records again with --prior"
            )
        target = motion.to_dict()
        if old["motion"] == target and not plan_path.exists():
            return old
        try:
            remember(plan_path, {"motion": target, "old": old})
        except DifferentSettingsError:
            message = f"{folder}: another prior is half added; let that one end, or make the records again"
            raise ValueError(message) from None
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        lengths = [0] * len(old["shards"])
        for entry in old["sequences"].values():
            lengths[entry["shard"]] += len(entry["offsets"])
        shards = [
            StoredShard(folder / shard["name"], shard["sha256"], length)
            for shard, length in zip(old["shards"], lengths, strict=True)
        ]
        described = run_engine(run, shards, motion, folder, report or WorkReport())
        computed = ("format_version", *COMPUTED)
        description = {key: value for key, value in old.items() if key not in computed} | {"motion": target}
        manifest = join_manifest(folder, described, description)
        write_manifest(folder, manifest)
        remove_files(folder, NEW_PRIOR_NAME)
        return manifest


def _read_old(plan_path: Path) -> dict:
    """The manifest that a folder had before the change of its prior that is going on.

    Raises:
      ValueError: the file is damaged, or another program's.
    """
    old = read_json(plan_path, "make the records again").get("old")
    if not isinstance(old, dict):
        raise ValueError(
            f"{plan_path}: expected a manifest under 'old', found {type(old).__name__}; if another program has written "
            "this file, move it away, else make the records again"
        )
    check_manifest(old, str(plan_path), LABEL_KINDS)
    return old


def _plan_prior(stored: MotionSettings, prior: str, folder: Path) -> MotionOptions:
    """What a folder is to hold whose motion was `stored`, with a new prior."""
    flow, superpixels = stored.flow_settings, None
    if prior not in UNTRAINED:
        model = load_prior(prior)
        superpixels = model.superpixel_settings
        if model.flow_settings != flow:
            raise ValueError(
                f"{folder}: these records' flow is {flow}, but {prior} was trained on {model.flow_settings}; make the "
                "records again with --prior, or train a prior on such flow"
            )
    if flow.method == FROM_FILES and not stored.flow_stored:
        raise ValueError(f"{folder}: flow came from files and is not stored; make the records again with --flow_dir")
    return MotionOptions(flow, superpixels, prior, bool(stored.flow_stored))
