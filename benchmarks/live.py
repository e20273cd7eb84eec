"""`msst predict --live` for a long time on a stream that is faster than the model: how old its maps are, what it drops.

  python benchmarks/live.py --seconds=600 --rate=30

A photograph that moves, 480x854, comes as H.264 over TCP at --rate frames a second, as a network camera sends it. The
page's state is read once a second. Exit status 1 when the frames do not add up, or when in a later fifth of the time
the newest map's median age is above twice that of the first fifth: then the program falls behind.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from fractions import Fraction

import av
import cv2
import numpy as np
import skimage.data

SIZE = (480, 854)
CLIP_SECONDS = 4  # encoded once and sent again and again


def main() -> int:
    """Runs the stream and the command, and prints a line for each fifth of the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=int, default=30)
    parser.add_argument("--model", help="in place of the installed one")
    arguments = parser.parse_args()
    source, page = _free_port(), _free_port()
    threading.Thread(target=_send, args=(source, arguments.rate), daemon=True).start()
    command = [sys.executable, "-m", "msst_keras", "predict", "--live", f"--input=tcp://127.0.0.1:{source}"]
    command += [f"--port={page}"] + ([f"--model={arguments.model}"] if arguments.model else [])
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            rows = list(_watch(page, process, arguments.seconds))
        finally:
            process.send_signal(signal.SIGINT)
        print(f"the command ended with status {process.wait(60)}")
    return _report(rows)


def _send(port: int, rate: int) -> None:
    """Sends the clip in real time, to whoever comes first, until they go."""
    packets = _encode(rate)
    with contextlib.suppress(OSError), av.open(f"tcp://127.0.0.1:{port}?listen=1", "w", format="mpegts") as container:
        stream = container.add_stream("h264", rate=rate, width=SIZE[1], height=SIZE[0], pix_fmt="yuv420p")
        start, number = time.monotonic(), 0
        while True:
            packet = av.Packet(packets[number % len(packets)])
            packet.stream, packet.time_base = stream, Fraction(1, rate)
            packet.pts = packet.dts = number
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
            container.mux(packet)
            number += 1


def _encode(rate: int) -> list[bytes]:
    """The packets of a clip that ends as it begins, one a frame."""
    photo = cv2.resize(skimage.data.astronaut(), (SIZE[1], SIZE[1]), interpolation=cv2.INTER_CUBIC)
    kept = io.BytesIO()
    with av.open(kept, "w", format="h264") as container:
        options = {"preset": "ultrafast", "tune": "zerolatency", "bf": "0", "g": str(rate)}
        stream = container.add_stream("h264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        packets = []
        for index in range(CLIP_SECONDS * rate):
            row = round((SIZE[1] - SIZE[0]) * (0.5 - 0.5 * np.cos(2 * np.pi * index / (CLIP_SECONDS * rate))))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(photo[row : row + SIZE[0]]), format="rgb24")
            packets += [bytes(packet) for packet in stream.encode(frame)]
        packets += [bytes(packet) for packet in stream.encode(None)]
    return [packet for packet in packets if packet]


def _watch(port: int, process: subprocess.Popen, seconds: float) -> Iterator[dict]:
    """The page's state once a second, from the twentieth map on, with the seconds and the memory in MB."""
    start = None
    while start is None or time.monotonic() < start + seconds:
        if process.poll() is not None:
            raise SystemExit(f"the command ended by itself with status {process.returncode}")
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/state", timeout=10) as got,
        ):
            state = json.load(got)
            if state["maps"] > 20:
                start = start or time.monotonic()
                with open(f"/proc/{process.pid}/statm") as file:
                    memory = int(file.read().split()[1]) * 4096 >> 20
                yield state | {"seconds": time.monotonic() - start, "memory": memory}
        time.sleep(1)


def _report(rows: list[dict]) -> int:
    first, last = rows[0], rows[-1]
    seconds = last["seconds"] - first["seconds"]
    came, shown = ((last[name] - first[name]) / seconds for name in ("frames", "maps"))
    waiting = last["frames"] - last["maps"] - last["dropped"]
    print(
        f"{seconds:.0f} s: {came:.1f} frames a second came, {shown:.1f} maps were made; of {last['frames']} frames "
        f"{last['maps']} shown, {last['dropped']} dropped, {waiting} under way"
    )
    fifths = [rows[index * len(rows) // 5 : (index + 1) * len(rows) // 5] for index in range(5)]
    medians = [statistics.median(row["lag"] for row in fifth) for fifth in fifths]
    for number, (fifth, median) in enumerate(zip(fifths, medians, strict=True)):
        oldest = max(row["lag"] for row in fifth)
        print(f"fifth {number + 1}: newest map {median:.2f} s old, {oldest:.2f} at most; {fifth[-1]['memory']} MB")
    return int(not 0 <= waiting <= 16 or max(medians) > 2 * medians[0])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
