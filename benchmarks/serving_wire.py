"""What a frame costs on the wire, and what it changes: a video through `step` and through a local stream.

  python benchmarks/serving_wire.py --model=saved_models/msst --frames=DAVIS/JPEGImages/480p/dog --num_frames=20

Prints, for gRPC and REST and for frames as JPEGs and as PNGs: the bytes of each input and output of `step`, of a frame
on average and of all of them at most, without what HTTP and base64 add; and by how many grey levels the maps differ
from the local ones, on average and at most. A server is started in this process (tests/model_server.py).
"""

from __future__ import annotations

import argparse
import collections
import statistics
import sys
from pathlib import Path

import cv2
import numpy as np

from msst_keras.inference.stream import SaliencyModel, SaliencyStream
from msst_keras.serving import wire
from msst_keras.serving.client import RemoteModel, RemoteStream


def main() -> None:
    """Compares the two streams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--frames", required=True, help="folder of one video's frames")
    parser.add_argument("--num_frames", type=int, default=20)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import model_server

    paths = sorted(Path(arguments.frames).iterdir())[: arguments.num_frames]
    frames = [np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]) for path in paths]
    expected = _stream(SaliencyStream(SaliencyModel(arguments.model)), frames)
    with model_server.serve({"msst": arguments.model}) as server:
        for address in (server.grpc_address, server.rest_address):
            for quality in (95, wire.LOSSLESS):
                model = RemoteModel(address, frame_quality=quality)
                sizes = _count_bytes(model)
                differences = np.abs(_stream(RemoteStream(model), frames) - expected)
                totals = [sum(each.values()) / 1000 for each in sizes]
                print(
                    f"{address.partition(':')[0]}, frame_quality {quality}: {statistics.mean(totals):.0f} KB a frame, "
                    f"{max(totals):.0f} at most; levels {differences.mean():.3f}, {differences.max()} at most"
                )
                for name in sizes[-1]:
                    print(f"    {name}: {statistics.mean(each[name] for each in sizes) / 1000:.1f} KB")


def _stream(stream, frames):
    """All maps of a stream in grey levels, int (N, H, W)."""
    maps = [saliency for frame in frames for saliency in stream.push(frame)] + stream.close()
    return np.rint(255 * np.stack(maps)).astype(int)


def _count_bytes(model):
    """The list to which each request of `step` will add the bytes of its inputs and outputs."""
    ask, sizes = model.ask, []

    def counted(signature, inputs):
        answer = ask(signature, inputs)
        count = collections.Counter({f"{name} up": len(value) for name, value in inputs.items()})
        sizes.append(count + collections.Counter({f"{name} down": len(value) for name, value in answer.items()}))
        return answer

    model.ask = counted
    return sizes


if __name__ == "__main__":
    main()
