"""The job of `msst make_records`: options that would not be heeded are refused, in one sentence that names them."""

from __future__ import annotations

import unicodedata

import cv2
import numpy as np
import pytest
from forked import msst

from msst_keras.conversion import new_prior
from msst_keras.conversion.options import FlowOptions, MakeRecordsOptions, StillOptions
from msst_keras.jobs.make_records import make_records
from msst_keras.synthetic import videos

pytestmark = pytest.mark.usefixtures("in_this_process")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_added_prior_takes_no_option_of_a_conversion(tmp_path):
    videos.write_davis(tmp_path / "davis", 1, 2, (48, 64), seed=0)
    folder = str(tmp_path / "out")
    flow = FlowOptions(flow="farneback", motion_size=(32, 48), prior="none")
    make_records(MakeRecordsOptions(dataset="davis", root=f"{tmp_path}/davis", output_dir=folder, motion=flow))
    before = contents(tmp_path / "out")
    flow, stills = FlowOptions(flow="tvl1", store_flow=True), StillOptions(still_seed=3)
    with pytest.raises(ValueError) as caught:
        make_records(MakeRecordsOptions(
            add_prior="magnitude", output_dir=folder, dataset="stills", root="/nowhere", overwrite=True,
            num_shards=2, motion=flow, stills=stills, num_workers=1,
        ))  # fmt: skip
    assert str(caught.value) == (
        "--add_prior takes the records as they are; leave out --dataset, --flow, --num_shards, --overwrite, "
        "--root, --still_seed, --store_flow"
    )
    with pytest.raises(ValueError, match="takes the records as they are; leave out --prior_dir"):
        make_records(
            MakeRecordsOptions(add_prior="magnitude", output_dir=folder, motion=FlowOptions(prior_dir="priors"))
        )
    assert contents(tmp_path / "out") == before
    # Lists are values as well as tuples, and the defaults of options may be given.
    manifest = make_records(MakeRecordsOptions(
        add_prior="magnitude", output_dir=folder, skip_sequences=[], num_workers=1,
        motion=FlowOptions(motion_size=[*FlowOptions().motion_size]),
    ))  # fmt: skip
    assert manifest["motion"]["prior"]["kind"] == "magnitude"


def test_an_added_prior_is_made_by_whom_one_likes(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(new_prior, "add_prior", lambda *arguments: given.append(arguments[:-1]) or NOTHING)
    make_records(
        MakeRecordsOptions(add_prior="flow", output_dir=str(tmp_path), engine="beam", beam_args="--runner=FlinkRunner")
    )
    make_records(MakeRecordsOptions(add_prior="flow", output_dir=str(tmp_path), num_workers=3))
    assert [arguments[2:] for arguments in given] == [
        (given[0][2], "beam", ["--runner=FlinkRunner"]),
        (3, "local", []),
    ]
    assert all(arguments[:2] == (str(tmp_path), "flow") for arguments in given)


NOTHING = {"shards": [], "sequences": {}, "num_frames": 0, "num_labelled": 0}


@pytest.mark.parametrize(
    "options, named",
    [
        ({"still_seed": 3}, "--still_seed is"),
        ({"still_flow": "estimated"}, "--still_flow is"),
        ({"still_flow": "estimated", "still_seed": 3}, "--still_flow, --still_seed are"),
        ({"still_shrunk": 0.5, "still_seed": 3}, "--still_seed, --still_shrunk are"),
    ],
)
def test_options_of_stills_in_motion_are_refused_for_stills(tmp_path, options, named):
    for name in ("image", "mask"):
        (tmp_path / "stills" / name).mkdir(parents=True)
        cv2.imwrite(f"{tmp_path}/stills/{name}/1.png", np.full((48, 64), 255, np.uint8))
    with pytest.raises(ValueError, match=f"^{named} for stills in motion; give --still_frames=2 or more$"):
        make_records(MakeRecordsOptions(
            dataset="stills", root=f"{tmp_path}/stills", output_dir=f"{tmp_path}/out", stills=StillOptions(**options)
        ))  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ours, theirs", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_spelled_otherwise(tmp_path, ours, theirs):
    """Names of sequences come from a keyboard, and the prior's from another computer."""
    frames, priors = tmp_path / "frames", tmp_path / "priors"
    for name in ("caf\u00e9", "\u00e9t\u00e9"):
        folder = frames / unicodedata.normalize(ours, name)
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / unicodedata.normalize(ours, "\u00e9_1.png")), np.full((48, 64, 3), 9, np.uint8))
    prior = priors / unicodedata.normalize(theirs, "caf\u00e9")
    prior.mkdir(parents=True)
    cv2.imwrite(str(prior / unicodedata.normalize(theirs, "\u00e9_1.png")), np.full((32, 48), 200, np.uint8))
    manifest = make_records(MakeRecordsOptions(
        dataset="folder", root=str(frames), output_dir=f"{tmp_path}/out", num_workers=1,
        skip_sequences=[unicodedata.normalize(theirs, "\u00e9t\u00e9")],
        motion=FlowOptions(motion_size=(32, 48), prior_dir=str(priors)),
    ))  # fmt: skip
    assert list(manifest["sequences"]) == [unicodedata.normalize(ours, "caf\u00e9")]
    with pytest.raises(ValueError, match="--skip_sequences names etc, which would not have been converted anyhow"):
        make_records(MakeRecordsOptions(dataset="folder", root=str(frames), output_dir="out", skip_sequences=["etc"]))


@pytest.mark.slow
def test_the_command_says_so_too(tmp_path):
    result = msst("make_records", "--add_prior=magnitude", f"--output_dir={tmp_path}", "--dataset=stills", "--root=/no")
    assert result.returncode == 2
    assert "--add_prior takes the records as they are; leave out --dataset" in result.stderr
