"""Videos for tests, of every kind that PyAV can write."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

TICKS = 1000  # a second


def pictures(count, size=(48, 64)):
    """`count` RGB frames, (H, W, 3) uint8: a bright square on smooth colours moves right, and each frame is lighter."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    for number in range(count):
        picture = np.stack([columns * 2, rows * 2, np.full(size, 60 + 4 * number)], axis=2)
        picture[height // 4 : height // 2, 4 + 2 * number : 16 + 2 * number] = (230, 40, 20)
        yield np.clip(picture, 0, 255).astype(np.uint8)


def write_video(
    path, images, rate=10, times=None, codec="libx264", pixels="yuv420p", matrix=None, aspect=None, options=None,
    muxer=None, format=None,
):  # fmt: skip
    """Writes a video of RGB frames; `times`: seconds of each; `matrix`: its display matrix, nine numbers (16.16)."""
    with av.open(str(path), "w", format=format, options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.pix_fmt = pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, TICKS)
        if matrix:
            stream.set_display_matrix(matrix)
        for number, image in enumerate(images):
            if not number:
                stream.height, stream.width = image.shape[:2]
                if aspect:
                    stream.codec_context.sample_aspect_ratio = Fraction(aspect)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shift_packets(source, target, seconds):
    """Copies a video without encoding, its times moved: what lies before 0 is hidden by an edit list, in MP4."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.size:
                packet.pts += round(seconds / packet.time_base)
                packet.dts += round(seconds / packet.time_base)
                packet.stream = stream
                write.mux(packet)
    return target
