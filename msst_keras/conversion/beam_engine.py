"""Apache Beam as the engine of a conversion: each shard is an element, made by what the local workers run as well.

Every Beam worker starts one process of `workers`, so that bytes are those of the engine "local". Beam's own workers
need this package and all the paths: the dataset's, the prior's, and that of the records (a shared file system; paths
such as gs:// are not understood).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from msst_keras.conversion.sources import Shard
from msst_keras.conversion.work_report import WorkReport
from msst_keras.conversion.workers import Worker
from msst_keras.files import publish
from msst_keras.motion.settings import MotionOptions

# In the folder of the records while the pipeline's end and its start hand the results over; removed with what is left
# half-written.
_RESULTS_NAME = ".partial-beam-results.json"


def make_shards(
    shards: Sequence[Shard], motion: MotionOptions, beam_args: Sequence[str], report: WorkReport
) -> list[dict]:
    """Makes shards in a Beam pipeline.

    Args:
      shards: what to make.
      motion: what is stored in them.
      beam_args: Beam's pipeline options ("--runner=FlinkRunner", ...); without any, Beam's DirectRunner works here.
      report: filled in, but for `elapsed`: Beam's own start is no work.

    Returns:
      what the manifest says of each shard, in their order.

    Raises:
      FileNotFoundError, ValueError, OSError: an input at fault; that of the first such shard, when all are done.
    """
    results_path = shards[0].path.with_name(_RESULTS_NAME)
    with beam.Pipeline(options=PipelineOptions(list(beam_args))) as pipeline:
        _ = (
            pipeline
            | beam.Create(list(enumerate(shards)))
            | beam.Reshuffle()  # or a runner may fuse all shards into one worker
            | beam.ParDo(_MakeShard(motion))
            | beam.combiners.ToList()
            | beam.Map(_publish_results, str(results_path))
        )
    described = []
    for _, failure, result in json.loads(results_path.read_text()):
        if failure:
            raise {"FileNotFoundError": FileNotFoundError, "ValueError": ValueError}.get(failure, OSError)(result)
        description, measured = result
        report.add(WorkReport(**measured))
        described.append(description)
    return described


class _MakeShard(beam.DoFn):
    """(number, shard) -> [number, kind of failure or None, (description, report) or the failure's sentence].

    A failure is an element like any other: Beam would try again what will fail again.
    """

    def __init__(self, motion: MotionOptions):
        self._motion = motion
        self._worker: Worker | None = None

    def process(self, element: tuple[int, Shard]) -> Iterator[list]:
        """Makes the shard of an element."""
        number, shard = element
        try:
            worker = self._worker
            if worker is None:
                worker = self._worker = Worker(self._motion)
                worker.receive()  # "ready"
            worker.send(shard)
            while (message := worker.receive())[0] == "frame":
                pass
            description, report = message[1]
            yield [number, None, [description, vars(report)]]
        except (ValueError, OSError) as error:
            self.teardown()
            yield [number, type(error).__name__, str(error)]

    def teardown(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


def _publish_results(results: list, path: str) -> None:
    with publish(Path(path)) as temporary:
        temporary.write_text(json.dumps(sorted(results, key=lambda result: result[0])))
