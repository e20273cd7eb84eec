"""Shows what record folders hold: manifest, counts per sequence and label kind, bytes per feature, a contact sheet.

  msst inspect_records --records=records/davis_train --output=sheet.png
  msst inspect_records --records='records/*' --verify

--verify reads every byte (SHA-256, checksums, images) and exits with 1 at the first that is not as it should be.
"""

from __future__ import annotations

import numpy as np
from absl import flags

from msst_keras import cli

_RECORDS = flags.DEFINE_list("records", None, "Globs of record folders, comma-separated.")
_OUTPUT = flags.DEFINE_string("output", None, "Write a contact sheet of them to this PNG file.")
_ROWS = flags.DEFINE_integer("rows", 12, "Rows of the sheet for each folder, evenly over its sequences.", lower_bound=1)
_VERIFY = flags.DEFINE_bool("verify", False, "Read and check everything; sizes are then of all frames, not of a few.")
flags.mark_flags_as_required(["records"])

_SAMPLES = 64  # frames that sizes are measured on without --verify
_CELL_HEIGHT = 120


def main() -> None:
    """Describes each folder, then draws the sheet."""
    from msst_keras.pipeline.clip_index import find_record_folders
    from msst_keras.records import inspection
    from msst_keras.records.manifest import read_manifest

    if _OUTPUT.value and not _OUTPUT.value.lower().endswith(".png"):
        raise ValueError(f"--output must end with .png, not '{_OUTPUT.value}'")
    rows = []
    for folder in find_record_folders(_RECORDS.value):
        manifest = read_manifest(folder)
        print("\n".join(inspection.describe_folder(folder, manifest)), flush=True)
        if _VERIFY.value:
            sizes, measured = inspection.verify_folder(folder), "all frames"
        else:
            chosen = inspection.choose_frames(manifest, _SAMPLES)
            sampled = [inspection.read_frame_record(folder, manifest, *frame) for frame in chosen]
            sizes, measured = inspection.measure_features(sampled), f"{len(sampled)} of its frames"
        text = ", ".join(f"{feature} {size:.1f}" for feature, size in sizes.items())
        print(f"\n  mean KiB a frame, of {measured}: {text}")
        if _VERIFY.value:
            print(f"  verified: every checksum and image of {manifest['num_frames']} frames is right")
        for frame in inspection.choose_frames(manifest, _ROWS.value)[: _ROWS.value] if _OUTPUT.value else ():
            record = inspection.read_frame_record(folder, manifest, *frame)
            rows.append(_row(record, f"{folder}: {record.sequence} {record.name}"))
    if _OUTPUT.value:
        _write_sheet(rows)
        print(f"{_OUTPUT.value}: {len(rows)} frames")


def _row(record, place: str) -> list[np.ndarray]:
    """Caption, frame, mask, prior and flow of a record; grey where there is none."""
    from msst_keras.data import flow_files, images
    from msst_keras.inference.overlay import overlay
    from msst_keras.motion.flow import flow_to_color

    frame = images.decode_frame(record.frame, place)
    nothing = np.full(frame.shape, 200, np.uint8)
    cells = [_caption(record), frame, nothing, nothing, nothing]
    if record.mask is not None:
        mask = images.decode_frame(record.mask, f"{place}: mask")[..., 0]
        cells[2] = overlay(frame, (mask > 127).astype(np.float32))
    if record.prior is not None:
        cells[3] = images.decode_frame(record.prior, f"{place}: prior")
    if record.flow is not None:
        cells[4] = flow_to_color(flow_files.decode_flow_png(record.flow, f"{place}: flow"))
    return cells


def _caption(record) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", (170, _CELL_HEIGHT), 255)
    size = f"{record.width} x {record.height}"
    text = "\n".join((record.sequence[:22], record.name[:22], size, record.label_kind or "no label"))
    ImageDraw.Draw(image).text((6, _CELL_HEIGHT / 2), text, 0, ImageFont.load_default(size=14), "lm", spacing=5)
    return np.array(image)


def _write_sheet(rows: list) -> None:
    from msst_keras.data.images import encode_png
    from msst_keras.files import publish
    from msst_keras.inference.overlay import contact_sheet

    sheet = contact_sheet(rows, ("", "frame", "mask", "prior", "flow"), _CELL_HEIGHT)
    with publish(_OUTPUT.value) as temporary:
        temporary.write_bytes(encode_png(sheet))


if __name__ == "__main__":
    cli.run(main)
