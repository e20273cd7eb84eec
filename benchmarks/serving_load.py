"""Load on a model server: clients that each stream a video, for a while; latencies, errors, memory.

  python benchmarks/serving_load.py --server=grpc://localhost:8500 --model_name=msst --clients=8 --seconds=600
  python benchmarks/serving_load.py --model=saved_models/msst --clients=8 --seconds=60

With --model the tests' server is started in this process (tests/model_server.py: the official messages), and behind it
TensorFlow's own scheduler with the parameters of --batching, as TensorFlow Serving has it. Frames are of --frame_size:
a photograph that moves. The first tenth of the time is not counted.
Exit status 1 when there was an error or the 99th percentile of the latency is 3 times the median or more.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import skimage.data

from msst_keras.serving.client import RemoteModel, RemoteStream

_ROOT = Path(__file__).parents[1]
_BATCHING = _ROOT / "serving" / "batching.cpu.config"


def main() -> int:
    """Runs the clients and prints what they saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server")
    parser.add_argument("--model")
    parser.add_argument("--model_name", default="msst")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--frame_size", default="480x854")
    parser.add_argument("--batching", default=str(_BATCHING), help="of --model: the server's batching_parameters_file")
    arguments = parser.parse_args()
    size = tuple(map(int, arguments.frame_size.split("x")))
    with contextlib.ExitStack() as stack:
        address = arguments.server or stack.enter_context(_serve(arguments.model, arguments.batching)).grpc_address
        return _load(address, arguments.model_name, arguments.clients, arguments.seconds, size)


def _serve(folder: str, batching: str):
    sys.path.insert(0, str(_ROOT / "tests"))
    import model_server
    from scheduled_model import ScheduledModel

    from msst_keras.serving import warm_up

    versions = {
        int(path.name): ScheduledModel(path, batching) for path in Path(folder).iterdir() if path.name.isdecimal()
    }
    for model in versions.values():
        for signature, inputs in warm_up.read(model.path):
            model.run(signature, inputs)
    return model_server.serve({"msst": folder}, loaded={"msst": versions})


def _load(address: str, name: str, num_clients: int, seconds: float, size: tuple[int, int]) -> int:
    times, errors, sent = [], [], []
    start = time.monotonic()
    threads = [
        threading.Thread(target=_stream, args=(address, name, seed, start + seconds, size, times, errors, sent))
        for seed in range(num_clients)
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 10)
    memory = _memory()
    for thread in threads:
        thread.join()
    counted = sorted(took for began, took in times if began > start + seconds / 10)
    if not counted:
        print(f"no answers; {len(errors)} errors: {errors[:1]}")
        return 1
    p50, p99 = (counted[int(share * (len(counted) - 1))] for share in (0.5, 0.99))
    per_frame = sum(count for count, _ in sent) / max(1, sum(number for _, number in sent)) / 1000
    print(
        f"{num_clients} clients, {seconds:g} s: {len(counted) / (0.9 * seconds):.1f} answers a second, "
        f"p50 {p50:.3f} s, p99 {p99:.3f} s ({p99 / p50:.2f} times), {len(errors)} errors, "
        f"{per_frame:.0f} KB a frame both ways, "
        f"memory of this process {memory} MB then, {_memory()} MB now, {_peak()} MB at most"
    )
    for error in errors[:3]:
        print(f"  {type(error).__name__}: {error}")
    return int(bool(errors) or p99 >= 3 * p50)


def _stream(address, name, seed, end, size, times, errors, sent):
    """One client: pushes frames until the end, each as soon as the last was answered."""
    try:
        model = RemoteModel(address, name)
        stream, texture = RemoteStream(model), _texture(seed, size)
        settled = model.bytes_sent + model.bytes_received
        ask, count = model.ask, 0

        def timed(signature, inputs):
            began = time.monotonic()
            answer = ask(signature, inputs)
            times.append((began, time.monotonic() - began))
            return answer

        model.ask = timed
        while time.monotonic() < end:
            count += len(stream.push(np.roll(texture, 3 * count, axis=1)))
        sent.append((model.bytes_sent + model.bytes_received - settled, count))
    except (ValueError, OSError) as error:
        errors.append(error)


def _texture(seed, size):
    """A photograph, as large as the frame and an edge that the motion brings in."""
    photo = getattr(skimage.data, ("astronaut", "chelsea", "coffee", "rocket")[seed % 4])()
    scale = max(size[0] / photo.shape[0], size[1] / photo.shape[1])
    photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(photo[: size[0], : size[1]])


def _memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main())
