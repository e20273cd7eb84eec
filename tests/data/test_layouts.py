"""What a dataset tree may not hold: links to nowhere, folders named like images, lists that are none."""

from __future__ import annotations

import os

import pytest

from msst_keras.data import layouts


def test_what_only_looks_like_a_frame_is_refused(tmp_path):
    (tmp_path / "00000.jpg").touch()
    (tmp_path / "notes").mkdir()
    assert layouts.list_images(tmp_path) == [tmp_path / "00000.jpg"]
    (tmp_path / "00001.jpg").mkdir()
    with pytest.raises(ValueError, match="00001.jpg: expected an image file by its name, found none behind it"):
        layouts.list_images(tmp_path)


@pytest.mark.parametrize("target", ["00000.jpg", "nowhere"])
def test_links_that_lead_nowhere_are_refused(tmp_path, target):
    (tmp_path / "00000.jpg").symlink_to(target)  # itself, or nothing
    with pytest.raises(FileNotFoundError, match="00000.jpg: a link that leads nowhere"):
        layouts.list_images(tmp_path)


@pytest.mark.parametrize("name", [b"\xff.jpg", b"a\nb.jpg"])
def test_names_that_cannot_be_printed_are_refused(tmp_path, name):
    with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
        pass
    with pytest.raises(ValueError, match="jpg': this name cannot be printed; rename it") as caught:
        layouts.list_images(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"../../other\n..\n", "found '..'"), (b"/\n", "found ''"), (b"\xff", "no text")],
)
def test_lists_that_are_none_are_refused(tmp_path, content, message):
    (tmp_path / "ImageSets" / "480p").mkdir(parents=True)
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder / "480p" / "ball").mkdir(parents=True)
    (tmp_path / "ImageSets" / "480p" / "train.txt").write_bytes(content)
    with pytest.raises(ValueError, match=f"train.txt: expected .*{message}"):
        layouts.davis(tmp_path, "train")
