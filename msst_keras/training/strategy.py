"""Where a training runs: one device, the GPUs of a host, or several hosts.

Every process of a training computes a share of every global batch, and all of them keep the same weights. What is
learned depends on the global batch alone, not on how many devices share it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msst_keras.pipeline.share import Share
from msst_keras.training.options import STRATEGIES


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a training, as one of its processes sees them.

    Attributes:
      strategy: the strategy in whose scope model and optimizer are built.
      worker, num_workers: the number of this process, and how many processes there are.
    """

    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)
    worker: int = 0
    num_workers: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run's files."""
        return self.worker == 0

    @property
    def num_replicas(self) -> int:
        """How many copies of the model there are in all processes together."""
        return self.strategy.num_replicas_in_sync

    @property
    def share(self) -> Share:
        """The part of every batch that this process reads."""
        return Share(self.worker, self.num_workers, self.num_replicas // self.num_workers)

    def scatter(self, batches: Sequence[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Puts one batch on each replica of this process, for `strategy.run`."""
        if self.num_replicas == 1:
            return batches[0]
        local = iter(batches)
        return self.strategy.experimental_distribute_values_from_function(lambda _: next(local))

    def gather(self, values: tf.Tensor) -> np.ndarray:
        """Joins the results of `strategy.run` on all replicas of all processes along the first axis, in their order."""
        return values.numpy() if self.num_replicas == 1 else self.strategy.gather(values, axis=0).numpy()

    def gather_number(self, number: int) -> list[int]:
        """The numbers that the replicas' processes gave. All processes wait here for each other."""
        here = [{"number": tf.constant([number], tf.int64)}] * self.share.num_replicas
        return self.gather(self.scatter(here)["number"]).tolist()


def describe_devices(devices: Devices) -> str:
    """Says on what it trains: nobody is to train on the CPU without knowing it."""
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        where = "the CPU: TensorFlow sees no GPU"
    else:
        used = min(len(gpus), devices.share.num_replicas)
        where = f"{used} of {len(gpus)} GPUs" if len(gpus) > 1 else "the GPU"
    return where + (f", in each of {devices.num_workers} processes" if devices.num_workers > 1 else "")


def make_devices(name: str, batch_size: int) -> Devices:
    """Finds the devices for a strategy. It must run before anything else uses TensorFlow, so that workers can connect.

    Args:
      name: one of STRATEGIES. "auto" is "multi_worker" if TF_CONFIG or Slurm name several processes, otherwise
        "mirrored" if there are several GPUs, on as many of them as divide the batch, otherwise "one".
      batch_size: the size of the global batch.

    Raises:
      ValueError: the name is unknown, TF_CONFIG is damaged, "multi_worker" finds neither TF_CONFIG nor Slurm, or the
        replicas cannot share the batch equally.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not '{name}'")
    cluster = _find_cluster(name) if name in ("auto", "multi_worker") else None
    gpus = [] if cluster else tf.config.list_logical_devices("GPU")
    if name == "auto":
        name = "multi_worker" if cluster else "mirrored" if len(gpus) > 1 else "one"
        used = max((count for count in range(1, len(gpus) + 1) if batch_size % count == 0), default=0)
        if used < len(gpus):
            print(f"{used} of {len(gpus)} GPUs are used; more cannot share {batch_size} clips equally", file=sys.stderr)
        gpus = gpus[:used]
    if name == "one":
        return Devices()
    if name == "mirrored":
        if not gpus and len(tf.config.list_logical_devices("CPU")) == 1:
            raise ValueError(
                "--strategy=mirrored finds no GPU; leave it out, or install tensorflow[and-cuda] where there is one"
            )
        devices = Devices(tf.distribute.MirroredStrategy(gpus or tf.config.list_logical_devices("CPU")))
    else:
        if not cluster:
            raise ValueError(
                "--strategy=multi_worker finds neither TF_CONFIG nor Slurm's variables; set TF_CONFIG on every host "
                '(as {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}})'
            )
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=cluster())
        resolver = strategy.cluster_resolver
        devices = Devices(strategy, resolver.task_id or 0, resolver.cluster_spec().num_tasks("worker"))
    if batch_size % devices.num_replicas:
        raise ValueError(
            f"--batch_size={batch_size} is the batch of all {devices.num_replicas} devices and they share it equally; "
            f"give a multiple of {devices.num_replicas}"
        )
    return devices


def _find_cluster(name: str) -> Callable[[], tf.distribute.cluster_resolver.ClusterResolver] | None:
    """Finds the function that resolves the cluster in the environment; None if that names no other process."""
    resolvers = tf.distribute.cluster_resolver
    if "TF_CONFIG" in os.environ:
        try:
            config = json.loads(os.environ["TF_CONFIG"])
            cluster = config.get("cluster", {})
            if name == "auto" and sum(map(len, cluster.values())) <= 1:  # a cloud's job on one host
                if not any(cluster.values()) or "task" not in config or _is_member(config["task"], cluster):
                    return None
            valid = set(cluster) == {"worker"} and _is_member(config["task"], cluster)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            valid = False
        if not valid:
            raise ValueError(
                'TF_CONFIG must be {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": N}} '
                f"with N counting from 0, found {os.environ['TF_CONFIG']}"
            )
        return resolvers.TFConfigClusterResolver
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _resolve_slurm
    return None


def _is_member(task: Mapping[str, Any], cluster: Mapping[str, list[str]]) -> bool:
    """Whether a cluster has such a task; of values of other types KeyError or TypeError may be raised."""
    addresses, index = cluster[task["type"]], task["index"]
    return isinstance(addresses, list) and type(index) is int and 0 <= index < len(addresses)


def _resolve_slurm() -> tf.distribute.cluster_resolver.ClusterResolver:
    """The cluster of a Slurm step. A task has the GPUs that it sees; with several tasks a node srun must bind them."""
    resolvers, tasks = tf.distribute.cluster_resolver, int(os.environ["SLURM_STEP_NUM_TASKS"])
    port = 20000 + 10 * (int(os.environ.get("SLURM_JOB_ID", "0")) % 1000)  # two jobs may share a node
    # TensorFlow's resolver wants to deal out GPUs and fails if there are none, so it is told that each task has one.
    slurm = resolvers.SlurmClusterResolver(port_base=port, gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False)
    cluster = slurm.cluster_spec()
    gpus = len(tf.config.list_physical_devices("GPU"))
    return resolvers.SimpleClusterResolver(
        cluster, task_type=slurm.task_type, task_id=slurm.task_id, num_accelerators={"GPU": gpus}, rpc_layer="grpc"
    )
