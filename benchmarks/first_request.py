"""What the first request costs after a server's warm-up, against the requests after it.

  python benchmarks/first_request.py --model=saved_models/msst/1

The model is loaded by TensorFlow's C++ loader, which a server has as well, and answers the warm-up requests of its
folder. Then the signatures answer one request each, in turn, and --repeats rounds more. Exit status 1 when a first
request takes more than twice the median of its signature's later ones.

The requests take turns because a short one is slower behind a long one of another signature than behind one of its own:
what it needs has left the processor's caches. The last column is the median when a signature is asked again and again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from msst_keras.serving import warm_up


def main() -> int:
    """Prints a line for each signature."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the folder of one version")
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from cpp_model import CppModel

    requests = warm_up.read(Path(arguments.model))
    model = CppModel(arguments.model, Path(tf.__file__).parent)
    for request in requests:
        model.run(*request)
    last = dict(requests)  # of `step` the one in mid-stream
    rounds = [
        {signature: _time(model, signature, inputs) for signature, inputs in last.items()}
        for _ in range(1 + arguments.repeats)
    ]
    slow = False
    for signature, inputs in last.items():
        first, *later = (1e3 * seconds[signature] for seconds in rounds)
        median = statistics.median(later)
        alone = 1e3 * statistics.median(_time(model, signature, inputs) for _ in range(arguments.repeats))
        slow |= first > 2 * median
        times = f"first {first:8.2f} ms, median {median:8.2f} ms, {first / median:.2f} times"
        print(f"{signature:16} {times}; again and again {alone:8.2f} ms")
    return int(slow)


def _time(model, signature: str, inputs: dict[str, np.ndarray]) -> float:
    began = time.perf_counter()
    model.run(signature, inputs)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
