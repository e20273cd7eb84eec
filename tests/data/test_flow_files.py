"""Flow from files: what it must not hold."""

from __future__ import annotations

import numpy as np
import pytest

from msst_keras.data import flow_files, images


def test_flow_that_no_flow_png_can_hold_is_refused(tmp_path):
    (tmp_path / "ball").mkdir()
    flow = np.zeros((4, 6, 2), np.float32)
    flow[1, 2, 0] = 2047
    images.write_flow(tmp_path / "ball" / "0.flo", flow)
    (read,) = flow_files.read_flows(tmp_path, "ball", ["0"], (4, 6))
    np.testing.assert_array_equal(read, flow)
    flow[1, 2, 0] = -1e8
    images.write_flow(tmp_path / "ball" / "0.flo", flow)
    with pytest.raises(ValueError, match="0.flo: flow of 1e[+]08 px, expected less than 2048"):
        list(flow_files.read_flows(tmp_path, "ball", ["0"], (4, 6)))
