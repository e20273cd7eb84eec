"""`msst refine`: maps of any method with their frames; it goes on where it was and refuses what does not fit."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from forked import msst

from msst_keras.data import images
from msst_keras.inference import crf
from msst_keras.inference.options import CrfChoice, RefineOptions
from msst_keras.jobs import refine as refine_job


def refine(folder, *arguments):
    given = f"--maps={folder}/maps", f"--frames={folder}/frames", f"--output_dir={folder}/refined"
    return msst("refine", *given, *arguments)


@pytest.fixture
def folder(tmp_path):
    """Two sequences: a bright square on a dark ground, and maps blurred across its border; frames as BMP and PNG."""
    rows, columns = np.indices((40, 60))
    for sequence, suffix in (("a", "bmp"), ("b", "png")):
        for index in range(3):
            frame = np.full((40, 60, 3), 40, np.uint8)
            frame[10:30, 15 + index : 40 + index] = 200
            path = tmp_path / "frames" / sequence / f"{index:05d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.encode_png(frame))  # the reader goes by the content
            blurred = np.exp(-(((rows - 20) / 14) ** 2 + ((columns - 28 - index) / 18) ** 2))
            if index != 1:  # not every frame has a map
                images.write_map(tmp_path / "maps" / sequence / f"{index:05d}.png", blurred)
    return tmp_path


def test_each_map_is_refined_with_its_frame(folder):
    result = refine(folder, "--crf_iterations=3", "--num_workers=2")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"{folder}/refined: 4 maps refined, 0 were there already"
    names = [f"{sequence}/{index:05d}.png" for sequence in "ab" for index in (0, 2)]
    assert sorted(str(path.relative_to(folder / "refined")) for path in folder.glob("refined/*/*")) == names
    for name in names:
        saliency = images.read_map(folder / "maps" / name)
        frame = images.read_frame(next((folder / "frames" / name).parent.glob(name[2:7] + ".*")))
        expected = crf.refine(frame, saliency, crf.CrfOptions(iterations=3))
        assert np.abs(expected - saliency).max() > 0.2
        found = images.read_map(folder / "refined" / name)
        np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 1e-6)

    # Again: what is missing is made with the same bytes, the rest stays; other settings are refused.
    gone = folder / "refined" / names[1]
    before, times = gone.read_bytes(), {name: (folder / "refined" / name).stat().st_mtime_ns for name in names}
    gone.unlink()
    result = refine(folder, "--crf_iterations=3", "--num_workers=1")
    assert result.stdout.strip() == f"{folder}/refined: 1 maps refined, 3 were there already"
    changed = [name for name in names if (folder / "refined" / name).stat().st_mtime_ns != times[name]]
    assert changed == [names[1]] and gone.read_bytes() == before
    assert_one_sentence(refine(folder), f"{folder}/refined was made from something else: iterations 3 (now 5);")

    # A map that has changed under its name is noticed, a new one is added.
    images.write_map(folder / "maps" / names[0], np.zeros((40, 60)))
    images.write_map(folder / "maps/a/00001.png", np.zeros((40, 60)))
    again = refine(folder, "--crf_iterations=3")
    assert_one_sentence(again, f"refined holds 1 maps that were refined from other maps or frames ({names[0]});")
    result = refine(folder, "--crf_iterations=3", "--overwrite")
    assert result.stdout.strip() == f"{folder}/refined: 2 maps refined, 3 were there already"
    frame = images.read_frame(folder / "frames/a/00000.bmp")
    expected = crf.refine(frame, np.zeros((40, 60), np.float32), crf.CrfOptions(iterations=3))
    found = images.read_map(folder / "refined" / names[0])
    np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 1e-6)
    assert gone.read_bytes() == before


def test_an_empty_file_is_no_refined_map(folder):
    """A power cut leaves some: their names reached the disk, what is in them did not."""
    options = RefineOptions(
        maps=f"{folder}/maps", frames=f"{folder}/frames", output_dir=f"{folder}/refined", num_workers=1,
        crf=CrfChoice(iterations=1),
    )  # fmt: skip
    assert refine_job.refine(options) == 4
    empty, kept = folder / "refined/a/00002.png", folder / "refined/b/00000.png"
    before, time = empty.read_bytes(), kept.stat().st_mtime_ns
    empty.write_bytes(b"")
    (folder / "maps/b/00002.png").unlink()  # somebody has taken this map away meanwhile
    (folder / "refined/b/00002.png").write_bytes(b"")
    assert refine_job.refine(options) == 1
    assert empty.read_bytes() == before and kept.stat().st_mtime_ns == time
    assert not (folder / "refined/b/00002.png").exists()


@pytest.mark.parametrize("ours, theirs", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_spelled_otherwise(folder, ours, theirs):
    for name, form in (("maps", ours), ("frames", theirs)):
        for path in (folder / name / "a").iterdir():
            path.rename(path.with_name(unicodedata.normalize(form, f"\u00e9_{path.name}")))
        (folder / name / "a").rename(folder / name / unicodedata.normalize(form, "caf\u00e9"))
    options = RefineOptions(
        maps=f"{folder}/maps", frames=f"{folder}/frames", output_dir=f"{folder}/refined", num_workers=1,
        crf=CrfChoice(iterations=1),
    )  # fmt: skip
    assert refine_job.refine(options) == 4
    assert len(list((folder / "refined" / unicodedata.normalize(ours, "caf\u00e9")).iterdir())) == 2
    (folder / "frames/b/00000.jpg").touch()
    with pytest.raises(ValueError, match="frames/b/00000.png: 00000.jpg has this name too"):
        refine_job.refine(options)


def test_folders_without_sequences(folder):
    (folder / "maps/a").rename(folder / "a")
    (folder / "maps/b/00000.png").unlink()
    result = refine(folder, f"--maps={folder}/a", f"--frames={folder}/frames/a")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (folder / "refined").iterdir()) == [".msst.json", "00000.png", "00002.png"]


def no_maps(folder):
    (folder / "maps").rename(folder / "moved")
    return "maps: no such folder of maps"


def empty_maps(folder):
    (folder / "maps").rename(folder / "moved")
    (folder / "maps").mkdir()
    return "maps: no maps here; expected SEQUENCE/FRAME.png or FRAME.png"


def maps_that_are_no_png(folder):
    (folder / "maps/b/00000.png").rename(folder / "maps/b/00000.jpg")
    return "maps/b/00000.jpg: a map must be a PNG, as the refined one will be; convert it, or move it away"


def no_frames_of_a_sequence(folder):
    (folder / "frames/b").rename(folder / "frames/c")
    return f"{folder}/frames/b: no such folder"


def a_frame_is_missing(folder):
    (folder / "frames/b/00002.png").unlink()
    return f"1 of 4 maps have no frame of their name in {folder}/frames: {folder}/maps/b/00002.png"


def a_map_of_another_size(folder):
    images.write_map(folder / "maps/b/00000.png", np.zeros((20, 30)))
    return f"maps/b/00000.png: this map is 20x30, but its frame {folder}/frames/b/00000.png is 40x60"


def a_truncated_map(folder):
    path = folder / "maps/b/00000.png"
    path.write_bytes(path.read_bytes()[:-20])
    return "maps/b/00000.png: cut off or damaged"


def a_colour_map(folder):
    (folder / "maps/b/00000.png").write_bytes(images.encode_png(np.zeros((40, 60, 3), np.uint8)))
    return "maps/b/00000.png: a map must be 8-bit grey"


def other_files_in_the_output(folder):
    (folder / "refined").mkdir()
    (folder / "refined/00000.png").write_bytes(b"")
    return "refined holds files that `msst refine` did not write"


BAD = (
    no_maps, empty_maps, maps_that_are_no_png, no_frames_of_a_sequence, a_frame_is_missing, a_map_of_another_size,
    a_truncated_map, a_colour_map, other_files_in_the_output,
)  # fmt: skip


@pytest.mark.parametrize("spoil", BAD)
def test_a_bad_folder(folder, spoil):
    message = spoil(folder)
    assert_one_sentence(refine(folder, "--num_workers=1"), message)


def test_the_maps_are_not_written_over(folder):
    assert_one_sentence(refine(folder, f"--output_dir={folder}/maps"), "--output_dir is the folder of the maps")


def assert_one_sentence(result, message):
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1, result.stderr
    assert last.startswith("msst refine: ") and message in last, last
    assert "Traceback" not in result.stderr and result.stdout == ""
