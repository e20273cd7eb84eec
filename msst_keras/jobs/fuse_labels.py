"""Coarse labels of videos from several methods' maps (paper, section 3.3); `msst fuse_labels`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msst_keras.data import datasets, label_folders
from msst_keras.data.sequences import FileSequence
from msst_keras.files import DifferentSettingsError, hash_files, hash_folder
from msst_keras.inference import SHIPPED_MODEL
from msst_keras.labels import fuse
from msst_keras.labels.options import FuseLabelsOptions
from msst_keras.labels.sources import DEFAULTS, has_shipped_model, make_source
from msst_keras.locks import hold_folder
from msst_keras.outputs import Memory, check_apart


def fuse_labels(options: FuseLabelsOptions) -> fuse.Fusion:
    """Makes the built-in methods' maps, then fuses all maps and prints the weights.

    Returns:
      the weights, the quality where there are masks, and the numbers of labels and masks.

    Raises:
      FileExistsError: `output_dir` has labels already.
      FileNotFoundError, ValueError: an input or an option at fault, or a folder that was begun with other inputs.
    """
    output_dir = Path(options.output_dir)
    maps_dirs, sources = _find_methods(options)
    makers = {name: make_source(name, options.model) for name in sources}
    sequences = datasets.find_sequences(options.dataset, options.root, options.split, options.sequences)
    folders = {path.parent for sequence in sequences for path in sequence.frame_paths}
    check_apart(output_dir, [*folders, *maps_dirs.values()])
    with hold_folder(output_dir):
        return _fuse(options, output_dir, sequences, maps_dirs, makers)


def _fuse(
    options: FuseLabelsOptions,
    output_dir: Path,
    sequences: Sequence[FileSequence],
    maps_dirs: dict[str, Path],
    makers: Mapping[str, Callable],
) -> fuse.Fusion:
    labels_dir = output_dir / "labels"
    if labels_dir.exists():
        raise FileExistsError(f"{labels_dir}: labels are here already; choose another --output_dir")
    fuse.clear_partial(output_dir)
    _begin(options, output_dir, sequences, uses_model="model" in makers)
    sequences = [fuse.extract_frames(sequence, output_dir / "frames") for sequence in sequences]
    if options.ground_truth:
        sequences = label_folders.add_masks(sequences, options.ground_truth)
    for name, make in makers.items():
        maps_dirs[name] = output_dir / "sources" / name
        for sequence in sequences:
            fuse.make_maps(sequence, make, maps_dirs[name])
    fusion = fuse.fuse_labels(sequences, maps_dirs, labels_dir, options.free_offset)
    _report(fusion, labels_dir)
    return fusion


def _begin(options: FuseLabelsOptions, output_dir: Path, sequences: Sequence[FileSequence], uses_model: bool) -> None:
    """Refuses frames and maps that an interrupted run has left of other inputs or of another model."""
    files: dict[str, Path] = {}
    for sequence in sequences:
        paths = [sequence.video_path] if sequence.video_path else sequence.frame_paths
        files |= {f"{sequence.name}/{number}/{path.name}": path for number, path in enumerate(paths)}
    made_from = {"input": hash_files(files)}
    if uses_model:
        made_from["model"] = hash_folder(options.model or SHIPPED_MODEL)
    memory = Memory(output_dir, "fuse_labels", made_from)
    try:
        if memory.compare() is None:
            memory.refuse_strangers(name for name in ("frames", "sources") if (output_dir / name).exists())
    except DifferentSettingsError as error:
        raise ValueError(
            f"{output_dir} holds maps that were made from something else: {error.difference}; choose another "
            "--output_dir, or remove that folder"
        ) from None
    memory.write()


def _find_methods(options: FuseLabelsOptions) -> tuple[dict[str, Path], list[str]]:
    """The folder of each method's maps, and the built-in sources to add."""
    maps_dirs = {}
    for text in options.maps:
        name, colon, folder = text.partition(":")
        if not (name and colon and folder) or name in maps_dirs:
            raise ValueError(f"--maps takes NAME:DIR,NAME:DIR with each name once, not '{text}'")
        if name in (fuse.PLAIN_MEAN, fuse.FUSED):
            raise ValueError(
                f"--maps: '{name}' is what a combination of the methods is called; name this one otherwise"
            )
        maps_dirs[name] = Path(folder)
    if options.sources is not None:
        sources = list(options.sources)
    else:
        sources = [] if maps_dirs else [*DEFAULTS]
        sources += ["model"] if options.model or (not maps_dirs and has_shipped_model()) else []
    if "model" not in sources and options.model:
        raise ValueError("--model is for the source 'model', which --sources leaves out")
    twice = sorted(maps_dirs.keys() & set(sources)) or [name for name in sources if sources.count(name) > 1]
    if twice:
        raise ValueError(f"two methods are called {twice[0]}; give each its own name")
    return maps_dirs, sources


def _report(fusion: fuse.Fusion, labels_dir: Path) -> None:
    how = f"fitted on {fusion.num_masks} masks" if fusion.num_masks else "equal, since no frame has a mask"
    print(f"weights, {how}: " + ", ".join(f"{name} {weight:.3f}" for name, weight in fusion.weights.items()))
    if fusion.quality:
        print("mean IoU with these masks: " + ", ".join(f"{name} {iou:.3f}" for name, iou in fusion.quality.items()))
    print(f"{labels_dir}: {fusion.num_labels} coarse labels")
