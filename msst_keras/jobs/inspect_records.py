"""Shows what record folders hold; `msst inspect_records`."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from msst_keras.data import flow_files, images
from msst_keras.files import check_writable, publish
from msst_keras.inference.overlay import contact_sheet, overlay
from msst_keras.motion.flow_pictures import flow_to_color
from msst_keras.pipeline.clip_index import find_record_folders
from msst_keras.records import inspection
from msst_keras.records.example import FrameRecord
from msst_keras.records.manifest import read_manifest
from msst_keras.records.options import InspectRecordsOptions

_SAMPLES = 64  # frames that sizes are measured on where not everything is read
_CELL_HEIGHT = 120


def inspect_records(options: InspectRecordsOptions) -> None:
    """Prints what each folder holds, then draws the sheet.

    Raises:
      FileNotFoundError: no folder matches.
      ValueError: a folder that is damaged, or an output that is no PNG.
    """
    if options.output and not options.output.lower().endswith(".png"):
        raise ValueError(f"--output must end with .png, not '{options.output}'")
    if options.output:
        check_writable(options.output)  # before every byte is verified
    rows = []
    for folder in find_record_folders(options.records):
        manifest = read_manifest(folder)
        print("\n".join(inspection.describe_folder(folder, manifest)), flush=True)
        if options.verify:
            sizes, measured = inspection.verify_folder(folder), "all frames"
        else:
            chosen = inspection.choose_frames(manifest, _SAMPLES)
            sampled = [inspection.read_frame_record(folder, manifest, *frame) for frame in chosen]
            sizes, measured = inspection.measure_features(sampled), f"{len(sampled)} of its frames"
        text = ", ".join(f"{feature} {size:.1f}" for feature, size in sizes.items())
        print(f"\n  mean KiB a frame, of {measured}: {text}")
        if options.verify:
            print(f"  verified: every checksum and image of {manifest['num_frames']} frames is right")
        for frame in inspection.choose_frames(manifest, options.rows)[: options.rows] if options.output else ():
            record = inspection.read_frame_record(folder, manifest, *frame)
            rows.append(_draw_row(record, f"{folder}: {record.sequence} {record.name}"))
    if options.output:
        sheet = contact_sheet(rows, ("", "frame", "mask", "prior", "flow"), _CELL_HEIGHT)
        with publish(options.output) as temporary:
            temporary.write_bytes(images.encode_png(sheet))
        print(f"{options.output}: {len(rows)} frames")


def _draw_row(record: FrameRecord, place: str) -> list[np.ndarray]:
    """Caption, frame, mask, prior and flow of a record; grey where there is none."""
    frame = images.decode_frame(record.frame, place)
    nothing = np.full(frame.shape, 200, np.uint8)
    cells = [_draw_caption(record), frame, nothing, nothing, nothing]
    if record.mask is not None:
        mask = images.decode_frame(record.mask, f"{place}: mask")[..., 0]
        cells[2] = overlay(frame, (mask > 127).astype(np.float32))
    if record.prior is not None:
        cells[3] = images.decode_frame(record.prior, f"{place}: prior")
    if record.flow is not None:
        cells[4] = flow_to_color(flow_files.decode_flow_png(record.flow, f"{place}: flow"))
    return cells


def _draw_caption(record: FrameRecord) -> np.ndarray:
    image = Image.new("L", (170, _CELL_HEIGHT), 255)
    size = f"{record.width} x {record.height}"
    text = "\n".join((record.sequence[:22], record.name[:22], size, record.label_kind or "no label"))
    ImageDraw.Draw(image).text((6, _CELL_HEIGHT / 2), text, 0, ImageFont.load_default(size=14), "lm", spacing=5)
    return np.array(image)
