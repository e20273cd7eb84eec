"""Saliency maps of videos or folders of frames: one 8-bit grey PNG per frame, at the frame's size, named after it.

  msst predict --model=saved_models/msst --input=video.mp4,frames/ --output_dir=maps --crf --overlay=overlay.mp4

The maps of an input go to OUTPUT_DIR/NAME, NAME being its file or folder name. A folder of folders of frames gives one
sequence each. What is there already is not done again.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from absl import flags

from msst_keras import cli

_MODEL = flags.DEFINE_string("model", None, "Folder of a SavedModel: saved_models/NAME (the newest) or NAME/VERSION.")
_INPUT = flags.DEFINE_list(
    "input", None, "Video files, folders of frames, or folders of such folders, comma-separated."
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the maps.")
_CRF = flags.DEFINE_bool("crf", False, "Refine each map with the dense CRF, as the paper does in testing.")
_THRESHOLD = flags.DEFINE_float("threshold", None, "Write masks (0 and 255) of the maps above it.", 0.0, 1.0)
_FLOW_DIR = flags.DEFINE_string("flow_dir", None, "FLOW_DIR/SEQUENCE/FRAME.flo, for a model made with such flow.")
_OVERLAY = flags.DEFINE_string("overlay", None, "Also write the frames with their maps laid over as this MP4 video.")
flags.mark_flags_as_required(["model", "input", "output_dir"])


def main() -> None:
    """Streams each sequence through the model."""
    from msst_keras.data import datasets
    from msst_keras.inference.stream import SaliencyModel

    sequences = []
    for path in _INPUT.value:
        sequences += datasets.find_sequences("video" if Path(path).is_file() else "folder", path)
    names = [sequence.name for sequence in sequences]
    if len(set(names)) < len(names):
        raise ValueError(f"two of the inputs have one name ({', '.join(sorted(names))}); predict them one by one")
    if _OVERLAY.value and len(sequences) > 1:
        raise ValueError(f"--overlay is for one video, and there are {len(sequences)}: {', '.join(names)}")
    model = SaliencyModel(_MODEL.value)
    for sequence in sequences:
        output_dir = Path(_OUTPUT_DIR.value) / sequence.name
        if output_dir.exists() and (not _OVERLAY.value or Path(_OVERLAY.value).exists()):
            print(f"{output_dir}: there already")
        elif output_dir.exists():
            raise ValueError(f"{output_dir} is there already, without {_OVERLAY.value}; choose another --output_dir")
        else:
            print(f"{output_dir}: {_predict(model, sequence, output_dir)} maps")


def _predict(model, sequence, output_dir: Path) -> int:
    """Writes the maps of a sequence; folder and overlay appear when they are whole. Returns how many maps."""
    from msst_keras.data import images
    from msst_keras.data.flow_files import read_flows
    from msst_keras.files import publish
    from msst_keras.inference import crf, overlay
    from msst_keras.inference.stream import stream_maps
    from msst_keras.progress import progress

    count = 0
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(publish(output_dir))
        folder.mkdir()
        video = None
        flows = None
        if _FLOW_DIR.value:
            size = tuple(model.settings["motion"]["flow"]["motion_size"]) if model.settings["motion"] else (1, 1)
            flows = read_flows(_FLOW_DIR.value, sequence.name, sequence.frame_names, size)
        maps = stream_maps(model, ((name, frame) for name, _, frame in sequence.read_frames()), flows)
        for name, frame, saliency in progress(maps, len(sequence) or None, sequence.name):
            if _CRF.value:
                saliency = crf.refine(frame, saliency)
            if _OVERLAY.value:
                if video is None:
                    writer = overlay.OverlayWriter(_OVERLAY.value, sequence.frame_rate, frame.shape[:2])
                    video = stack.enter_context(writer)
                video.write(overlay.overlay(frame, saliency))
            if _THRESHOLD.value is not None:
                saliency = (saliency > _THRESHOLD.value).astype("float32")
            images.write_map(folder / f"{name}.png", saliency)
            count += 1
    return count


if __name__ == "__main__":
    cli.run(main)
