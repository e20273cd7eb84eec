"""Coarse labels of videos from several methods' maps (paper, section 3.3).

  msst fuse_labels --dataset=fbms --root=FBMS --split=train --maps=dcl:DCL,rfcn:RFCN,dsmt:DSMT --output_dir=coarse
  msst fuse_labels --dataset=video --root=videos/ --model=saved_models/msst --output_dir=coarse

The maps are combined with weights that fit the masks of those frames that have one (plain mean where there is none) and
thresholded by Otsu's method. OUTPUT_DIR/labels has a label for every frame without a mask, frames.csv with the most
doubtful frames first, and weights.csv. `msst review_labels` shows them; `msst make_records --coarse_labels` trains on
them. Without --maps the built-in sources are fused.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from msst_keras import cli

_DATASET = flags.DEFINE_enum(
    "dataset", "folder", ["davis", "fbms", "segtrackv2", "folder", "video"], "Layout of --root."
)
_ROOT = flags.DEFINE_string("root", None, "Folder of the dataset, a folder of frames, or a video file.")
_SPLIT = flags.DEFINE_enum("split", "all", ["train", "val", "all"], "Which official part of the dataset.")
_SEQUENCES = flags.DEFINE_list("sequences", None, "Only these sequences, comma-separated.")
_GROUND_TRUTH = flags.DEFINE_string(
    "ground_truth", None, "More masks, SEQUENCE/FRAME.png, of sequences of which the dataset has none."
)
_MAPS = flags.DEFINE_list("maps", [], "NAME:DIR of each method: DIR/SEQUENCE/FRAME.png, 8-bit grey, comma-separated.")
_SOURCES = flags.DEFINE_list(
    "sources", None,
    "Built-in methods to fuse as well: flow_magnitude, spectral_residual, fine_grained, model. By default the first "
    "two and the model where there is one, but with --maps none but the model that --model names.",
)  # fmt: skip
_MODEL = flags.DEFINE_string(
    "model", None, "Folder of a SavedModel of `msst export`, for the source 'model'. By default the one installed "
    "with the package."
)  # fmt: skip
_FREE_OFFSET = flags.DEFINE_bool(
    "free_offset", True, "Fit the weights up to a constant in each frame, which the threshold does not mind anyhow. "
    "--nofree_offset is the fit of the paper's reference [11] to the letter."
)  # fmt: skip
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the labels and for the built-in methods' maps.")
flags.mark_flags_as_required(["root", "output_dir"])


def main() -> None:
    """Makes the built-in methods' maps, then fuses all."""
    from msst_keras.data import datasets, label_folders
    from msst_keras.labels import fuse
    from msst_keras.labels.sources import make_source

    output_dir = Path(_OUTPUT_DIR.value)
    if (output_dir / "labels").exists():
        raise FileExistsError(f"{output_dir / 'labels'}: labels are here already; choose another --output_dir")
    maps_dirs, sources = _read_methods()
    makers = {name: make_source(name, _MODEL.value) for name in sources}
    sequences = datasets.find_sequences(_DATASET.value, _ROOT.value, _SPLIT.value, _SEQUENCES.value)
    fuse.clear_partial(output_dir)
    sequences = [fuse.extract_frames(sequence, output_dir / "frames") for sequence in sequences]
    if _GROUND_TRUTH.value:
        sequences = label_folders.add_masks(sequences, _GROUND_TRUTH.value)
    for name, make in makers.items():
        maps_dirs[name] = output_dir / "sources" / name
        for sequence in sequences:
            fuse.make_maps(sequence, make, maps_dirs[name])
    labels_dir = output_dir / "labels"
    _report(fuse.fuse_labels(sequences, maps_dirs, labels_dir, _FREE_OFFSET.value), labels_dir)


def _read_methods() -> tuple[dict[str, Path], list[str]]:
    """The folder of each method's maps, and the built-in sources to add."""
    from msst_keras.labels.sources import DEFAULTS, has_shipped_model

    maps_dirs = {}
    for text in _MAPS.value:
        name, colon, folder = text.partition(":")
        if not (name and colon and folder) or name in maps_dirs:
            raise ValueError(f"--maps takes NAME:DIR,NAME:DIR with each name once, not '{text}'")
        maps_dirs[name] = Path(folder)
    sources = _SOURCES.value
    if sources is None:
        sources = [] if maps_dirs else [*DEFAULTS]
        sources += ["model"] if _MODEL.value or (not maps_dirs and has_shipped_model()) else []
    if "model" not in sources and _MODEL.value:
        raise ValueError("--model is for the source 'model', which --sources leaves out")
    twice = sorted(maps_dirs.keys() & set(sources)) or [name for name in sources if sources.count(name) > 1]
    if twice:
        raise ValueError(f"two methods are called {twice[0]}; give each its own name")
    return maps_dirs, sources


def _report(fusion, labels_dir: Path) -> None:
    how = f"fitted on {fusion.num_masks} masks" if fusion.num_masks else "equal, since no frame has a mask"
    print(f"weights, {how}: " + ", ".join(f"{name} {weight:.3f}" for name, weight in fusion.weights.items()))
    if fusion.quality:
        print("mean IoU with these masks: " + ", ".join(f"{name} {iou:.3f}" for name, iou in fusion.quality.items()))
    print(f"{labels_dir}: {fusion.num_labels} coarse labels")


if __name__ == "__main__":
    cli.run(main)
