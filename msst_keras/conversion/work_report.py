"""Where the time and the memory of a conversion went."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import time
from collections.abc import Iterator
from pathlib import Path

# "check" is reading the finished shard back, for the manifest.
STAGES = ("decode", "flow", "superpixels", "prior", "encode", "check")


@dataclasses.dataclass
class WorkReport:
    """Where the time of a shard went, or of a whole conversion.

    Attributes:
      num_frames: written; those of shards that were there already do not count.
      seconds: of each of STAGES, all workers together.
      peak_memory: bytes, the most that a worker held.
      elapsed: seconds from when the workers were ready, on average, to when the last shard was; 0 where nobody looked.
    """

    num_frames: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    peak_memory: int = 0
    elapsed: float = 0.0

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def add(self, other: WorkReport) -> None:
        """Adds a shard's report."""
        self.num_frames += other.num_frames
        self.peak_memory = max(self.peak_memory, other.peak_memory)
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds

    def format(self) -> str:
        """A table of the stages: frames per second of one worker that does nothing else, and seconds of all workers."""
        lines = [
            f"  {stage:<12}{self.num_frames / seconds:10.1f} frames/s{seconds:10.1f} s"
            for stage, seconds in self.seconds.items()
            if seconds > 0
        ]
        rate = f", {self.num_frames / self.elapsed:.1f} frames/s in all" if self.elapsed else ""
        memory = f"peak memory of a worker {self.peak_memory / 2**20:.0f} MiB"
        return "\n".join([f"{self.num_frames} frames{rate}; {memory}; each stage by itself:", *lines])


def peak_memory() -> int:
    """Bytes, the most that this process has held at once."""
    # getrusage also counts what the parent held when it started this process.
    status = Path("/proc/self/status")
    if status.exists():
        kibibytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kibibytes) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS gives bytes
