"""Converts a dataset to sharded TFRecords with flow, motion prior and masks; `msst make_records`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from msst_keras.conversion.options import FlowOptions, MakeRecordsOptions, StillOptions
from msst_keras.conversion.work_report import WorkReport
from msst_keras.data import datasets, label_folders
from msst_keras.data.file_names import compose
from msst_keras.data.sequences import FileSequence
from msst_keras.motion.flow import FROM_FILES, FlowSettings
from msst_keras.motion.settings import FILES, NO_PRIOR, UNTRAINED, MotionOptions
from msst_keras.options import plain_values
from msst_keras.outputs import check_apart
from msst_keras.processes import count_cores
from msst_keras.synthetic.still_options import StillMotionOptions
from msst_keras.synthetic.stills import MovingStill, set_in_motion

# Option -> the setting of flow that it is.
_FLOW_SETTINGS = {
    "flow": "method", "motion_size": "motion_size", "flow_direction": "direction", "flow_stride": "stride"
}  # fmt: skip
# What --add_prior goes with: where the records are, and who works on them.
_OF_ADDED_PRIORS = ("add_prior", "output_dir", "engine", "num_workers", "beam_args")


def make_records(options: MakeRecordsOptions, given: Sequence[str] = ()) -> dict:
    """Finds the sequences, then converts them; or adds a prior to records.

    Args:
      options: what to do.
      given: options of flow and prior that were asked for although they are the defaults, so that what contradicts
        them is refused. Those that are not the defaults were asked for anyhow.

    Returns:
      the manifest of the record folder.

    Raises:
      ValueError, FileNotFoundError: an input at fault, or options that do not fit each other.
      BlockingIOError: another process writes to the folder.
      ChildProcessError: a worker died.
    """
    if options.engine == "local" and options.beam_args:
        raise ValueError("--beam_args are for --engine=beam; leave them out or choose that engine")
    if options.engine == "beam" and options.num_workers:
        raise ValueError("--num_workers is for --engine=local; tell Beam's runner by --beam_args")
    report = WorkReport()
    if options.add_prior:
        _refuse_conversion(options)
        from msst_keras.conversion.new_prior import add_prior  # brings TensorFlow, see below

        manifest = add_prior(options.output_dir, options.add_prior, *_workers(options), report)
    else:
        manifest = _convert(options, given, report)
    if report.num_frames:
        print(report.format())
    size = sum(shard["bytes"] for shard in manifest["shards"]) / 2**20
    print(
        f"{options.output_dir}: {len(manifest['sequences'])} sequences, {manifest['num_frames']} frames, "
        f"{manifest['num_labelled']} labelled, {len(manifest['shards'])} shards, {size:.1f} MiB"
    )
    return manifest


def _refuse_conversion(options: MakeRecordsOptions) -> None:
    """Refuses options of a conversion beside --add_prior, which would not heed them."""
    changed = _list_changed(options, MakeRecordsOptions(output_dir=options.output_dir))
    if others := [name for name in changed if name not in _OF_ADDED_PRIORS]:
        raise ValueError(f"--add_prior takes the records as they are; leave out --{', --'.join(others)}")


def _list_changed(options: MakeRecordsOptions | StillOptions, defaults: MakeRecordsOptions | StillOptions) -> list[str]:
    """The names of the options that are not as in `defaults`."""
    values, others = plain_values(options), plain_values(defaults)
    return [name for name, value in values.items() if value != others.get(name)]


def _workers(options: MakeRecordsOptions) -> tuple[int, str, list[str]]:
    """Who makes the shards: the number of processes, the engine, and Beam's own options."""
    return options.num_workers or count_cores(), options.engine, shlex.split(options.beam_args)


def _convert(options: MakeRecordsOptions, given: Sequence[str], report: WorkReport) -> dict:
    if not (options.dataset and options.root):
        raise ValueError("a conversion needs --dataset and --root, or --add_prior")
    sequences = datasets.find_sequences(options.dataset, options.root, options.split, options.sequences)
    sequences = _skip(sequences, options.skip_sequences)
    if options.coarse_labels:
        sequences = label_folders.add_coarse_labels(sequences, options.coarse_labels)
    folders = {path.parent for sequence in sequences for path in sequence.frame_paths}
    others = (options.coarse_labels, options.motion.flow_dir, options.motion.prior_dir)
    check_apart(options.output_dir, [*folders, *(folder for folder in others if folder)])
    moving, stills = _set_in_motion(sequences, options)
    # TensorFlow takes seconds to load, which an input at fault need not wait for.
    from msst_keras.conversion.convert import convert

    description = {"dataset": options.dataset, "split": options.split, **stills}
    motion = _choose_motion(options.motion, given)
    return convert(
        moving, options.output_dir, motion, description, options.label_kind, options.num_shards, *_workers(options),
        report, options.overwrite,
    )  # fmt: skip


def _skip(sequences: list[FileSequence], names: Sequence[str]) -> list[FileSequence]:
    """All sequences but those of these names, whose accents may be spelled otherwise."""
    skipped, there = {compose(name): name for name in names}, {compose(sequence.name) for sequence in sequences}
    if unknown := sorted(skipped[name] for name in skipped.keys() - there):
        raise ValueError(f"--skip_sequences names {', '.join(unknown)}, which would not have been converted anyhow")
    if len(kept := [sequence for sequence in sequences if compose(sequence.name) not in skipped]) == 0:
        raise ValueError("--skip_sequences leaves no sequence to convert")
    return kept


def _set_in_motion(
    sequences: list[FileSequence], options: MakeRecordsOptions
) -> tuple[Sequence[FileSequence | MovingStill], dict]:
    """The sequences, stills as clips where that is asked for, and what the manifest says of it."""
    stills = options.stills
    shares = {
        "shrunk": stills.still_shrunk, "parallax": stills.still_parallax, "distractors": stills.still_distractors,
        "crowds": stills.still_crowds,
    }  # fmt: skip
    named = {name: share for name, share in shares.items() if share}
    if stills.still_frames == 1:
        if others := _list_changed(stills, StillOptions()):
            are = "is" if len(others) == 1 else "are"
            raise ValueError(f"--{', --'.join(others)} {are} for stills in motion; give --still_frames=2 or more")
        return sequences, {}
    if options.dataset != "stills" or options.motion.flow_dir:
        raise ValueError("--still_frames is for --dataset=stills without --flow_dir: nobody has flow of such clips")
    motion = stills.still_frames, stills.still_seed, stills.still_flow == "exact"
    said = {"num_frames": stills.still_frames, "seed": stills.still_seed, "flow": stills.still_flow}
    variety = StillMotionOptions(
        shrunk_share=shares["shrunk"], parallax_share=shares["parallax"], distractor_share=shares["distractors"],
        crowd_share=shares["crowds"],
    )  # fmt: skip
    # A share of 0 is not named: records made before there were shares are then what is asked for.
    return set_in_motion(sequences, *motion, variety), {"stills": said | named}


def _choose_motion(options: FlowOptions, given: Sequence[str]) -> MotionOptions:
    """What is computed of motion: as the options say, or as the prior's file does, which they may not contradict."""
    stored = options.store_flow, options.flow_dir
    if options.prior_dir and _is_given("prior", options, given):
        raise ValueError("--prior and --prior_dir are two priors; give one of them")
    if options.prior_dir or options.prior in (NO_PRIOR, *UNTRAINED):
        method = FROM_FILES if options.flow_dir else options.flow
        flow = FlowSettings(method, options.motion_size, options.flow_direction, options.flow_stride)
        if options.prior_dir:
            return MotionOptions(flow, None, FILES, *stored, options.prior_dir)
        return MotionOptions(flow, None, options.prior, *stored)
    from msst_keras.motion.prior_files import load_prior  # brings Keras

    prior = load_prior(options.prior)
    if (prior.flow_settings.method == FROM_FILES) != bool(options.flow_dir):
        raise ValueError(
            f"{options.prior} was trained on flow of method {prior.flow_settings.method}; give --flow_dir with a prior "
            "of flow from files, and with no other"
        )
    for name, setting in _FLOW_SETTINGS.items():
        value, trained = getattr(options, name), getattr(prior.flow_settings, setting)
        if _is_given(name, options, given) and value != trained:
            raise ValueError(
                f"--{name}={value} contradicts {options.prior}, which was trained with {trained}; leave out the flag "
                "or train another prior"
            )
    return MotionOptions(prior.flow_settings, prior.superpixel_settings, options.prior, *stored)


def _is_given(name: str, options: FlowOptions, given: Sequence[str]) -> bool:
    """Whether an option was asked for; one that is not its default was, anyhow."""
    return name in given or getattr(options, name) != getattr(FlowOptions(), name)
