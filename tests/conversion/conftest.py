"""Fixtures of conversions."""

from __future__ import annotations

import pytest

from msst_keras.conversion import workers
from msst_keras.conversion.shard_maker import ShardMaker


@pytest.fixture
def in_this_process(monkeypatch):
    """Shards are made without worker processes, which would each take seconds to start."""

    def make_shards(shards, motion, num_workers, on_frame, report):
        maker = ShardMaker(motion)
        return [maker.make(shard, on_frame)[0] for shard in shards]

    monkeypatch.setattr(workers, "make_shards", make_shards)
