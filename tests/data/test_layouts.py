"""What a dataset tree may not hold: links to nowhere, folders named like images, lists that are none."""

from __future__ import annotations

import os

import pytest

from msst_keras.data import file_names, frame_numbers, layouts


def test_what_only_looks_like_a_frame_is_refused(tmp_path):
    (tmp_path / "00000.jpg").touch()
    (tmp_path / "notes").mkdir()
    assert file_names.list_images(tmp_path) == [tmp_path / "00000.jpg"]
    (tmp_path / "00001.jpg").mkdir()
    with pytest.raises(ValueError, match="00001.jpg: expected an image file by its name, found none behind it"):
        file_names.list_images(tmp_path)


@pytest.mark.parametrize("target", ["00000.jpg", "nowhere"])
def test_links_that_lead_nowhere_are_refused(tmp_path, target):
    (tmp_path / "00000.jpg").symlink_to(target)  # itself, or nothing
    with pytest.raises(FileNotFoundError, match="00000.jpg: a link that leads nowhere"):
        file_names.list_images(tmp_path)


@pytest.mark.parametrize(
    "name, shown",
    [
        (b"\xff.jpg", r"\\udcff.jpg"),
        (b"a\nb.jpg", r"a\\nb.jpg"),
        (b"\x1b[2J.jpg", r"\\x1b\[2J.jpg"),
        ("gpj.\u202e1.jpg".encode(), r"gpj.\\u202e1.jpg"),
    ],
)
def test_names_that_steer_a_terminal_are_refused_and_escaped(tmp_path, name, shown):
    with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
        pass
    with pytest.raises(
        ValueError, match=f"{shown}: this name holds control characters, or bytes that are no UTF-8"
    ) as e:
        file_names.list_images(tmp_path)
    assert str(e.value).isprintable()


NAMES = [
    "Screen Recording 2024-05-01 at 3.15.20\u202fPM 1.jpg", "v\u00a0letu 1.jpg", "\u30d5\u30ec\u30fc\u30e0\u30001.jpg",
    "\u0641\u06cc\u0644\u0645\u200c\u0647\u0627 1.jpg", "\U0001f468\u200d\U0001f469 1.jpg", "e\u0301t\u00e9 1.jpg",
    "[a],{b} (c) ~$x; 'y' 1.jpg", "12:30:05.jpg", "a" * 235 + "1.jpg", "-rf 1.jpg", "\u00b2 1.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_every_script_are_names(tmp_path, name):
    (tmp_path / name).touch()
    assert file_names.list_images(tmp_path) == [tmp_path / name]
    assert file_names.printable(name) == name
    frames, _ = layouts.pair_masks(layouts.Place("x", tmp_path, (), "nonzero"))
    assert frames == (tmp_path / name,)


@pytest.mark.parametrize("folder", ["@eaDir", "__MACOSX", "#recycle", ".thumbnails", "$RECYCLE.BIN"])
def test_folders_that_systems_make_are_passed_over(tmp_path, folder):
    (tmp_path / folder / "00000.jpg").mkdir(parents=True)
    (tmp_path / "00000.jpg").touch()
    assert file_names.list_images(tmp_path) == [tmp_path / "00000.jpg"]
    assert file_names.subfolders(tmp_path) == []
    assert [place.name for place in layouts.folder(tmp_path, "all")] == [tmp_path.name]


@pytest.mark.parametrize(
    "numbers, where",
    [
        ((0, 1, 2, 3, 40, 41), "one place, between 3.jpg and 40.jpg"),
        ((0, 10, 20, 40), "one place, between 20.jpg and 40.jpg"),
        ((1, 2, 4, 5, 7), "2 places, the first between 2.jpg and 4.jpg"),
    ],
)
def test_gaps_in_numbers_are_told(tmp_path, numbers, where):
    told = frame_numbers.describe_gaps(tuple(tmp_path / f"{number}.jpg" for number in numbers))
    assert f"frames are missing in {where}; what moved there" in told


@pytest.mark.parametrize("numbers", [(), (7,), (3, 9), (0, 1, 2), (0, 10, 20, 30)])
def test_numbers_that_follow_one_another_have_no_gap(tmp_path, numbers):
    assert frame_numbers.describe_gaps(tuple(tmp_path / f"{number}.jpg" for number in numbers)) == ""


def test_where_all_names_end_with_one_number_the_one_that_differs_counts(tmp_path):
    names = [f"PXL_2024050{day}_12.MP.jpg" for day in (1, 2, 3, 7)]
    for name in reversed(names):
        (tmp_path / name).touch()
    frames, _ = layouts.pair_masks(layouts.Place("x", tmp_path, (), "nonzero"))
    assert [path.name for path in frames] == names
    assert "between PXL_20240503_12.MP.jpg and PXL_20240507_12.MP.jpg" in frame_numbers.describe_gaps(frames)


def place_of(root, frames, masks, mask_rule="nonzero"):
    """A sequence with these names of frames and, in one folder or several, of masks."""
    for name in (*(f"frames/{name}" for name in frames), *masks):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    folders = sorted({(root / name).parent for name in masks})
    return layouts.Place("x", root / "frames", tuple(folders), mask_rule)


PLAIN = [f"{number:05d}.jpg" for number in range(12)]
VERSIONS = [f"frame_{number}_v2.png" for number in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    "frames, masks, mask_rule, expected",
    [
        (VERSIONS, ["a/frame_1_v2.png"], "nonzero", {0: ["a/frame_1_v2.png"]}),
        (VERSIONS, ["a/frame_0003_v2_gt.png"], "nonzero", {2: ["a/frame_0003_v2_gt.png"]}),
        (VERSIONS, ["a/mask_1.png"], "nonzero", {0: ["a/mask_1.png"]}),
        (VERSIONS, ["a/v2_1.png", "a/v2_4.png"], "nonzero", {0: ["a/v2_1.png"], 3: ["a/v2_4.png"]}),
        (VERSIONS, ["a/frame_3_v2.bmp", "b/o_3_v2.bmp"], "half", {2: ["a/frame_3_v2.bmp", "b/o_3_v2.bmp"]}),
        (VERSIONS, ["a/frame_4_v2_gt.ppm", "a/frame_4_v2.pgm"], "fbms", {3: ["a/frame_4_v2_gt.ppm"]}),
        (
            VERSIONS,
            ["a/frame_1_v2_gt.ppm", "a/frame_3_v2_gt.pgm"],
            "fbms",
            {0: ["a/frame_1_v2_gt.ppm"], 2: ["a/frame_3_v2_gt.pgm"]},
        ),
        (["e\u0301_1_v2.png", "e\u0301_2_v2.png"], ["a/\u00e9_1_v2.png"], "nonzero", {0: ["a/\u00e9_1_v2.png"]}),
        (["x1_7.png", "x1_8.png"], ["a/x01_0008_gt.ppm"], "fbms", {1: ["a/x01_0008_gt.ppm"]}),
        (["frame_1_v2.png"], ["a/frame_1_v2.png"], "nonzero", {0: ["a/frame_1_v2.png"]}),
        (PLAIN, ["a/00010_v2.png", "a/00011_v2.png"], "nonzero", {10: ["a/00010_v2.png"], 11: ["a/00011_v2.png"]}),
        (PLAIN, ["a/mask_10.png"], "nonzero", {10: ["a/mask_10.png"]}),
        (PLAIN, ["a/10 of 10.png"], "nonzero", {10: ["a/10 of 10.png"]}),
        (["r1_5.png", "r1_6.png", "r2_7.png"], ["a/r2_7_gt.png"], "nonzero", {2: ["a/r2_7_gt.png"]}),
    ],
)
def test_few_masks_go_to_the_frames_of_their_names(tmp_path, frames, masks, mask_rule, expected):
    _, found = layouts.pair_masks(place_of(tmp_path, frames, masks, mask_rule))
    assert {i: [path.relative_to(tmp_path).as_posix() for path in paths] for i, paths in found.items()} == expected


@pytest.mark.parametrize(
    "frames, mask, message",
    [
        (["frame_1_v2.png"], "a/frame_2_v2.png", "a/frame_2_v2.png: a mask without its frame; .* none of number 2"),
        (VERSIONS, "a/frame_5_v2.png", "a/frame_5_v2.png: a mask without its frame; .* none of number 5"),
        (VERSIONS, "a/frame_3_v2_1.png", "a/frame_3_v2_1.png: which number .* not clear; .* such as frame_1_v2.png"),
    ],
)
def test_one_mask_that_is_no_frames_is_not_given_to_another(tmp_path, frames, mask, message):
    with pytest.raises(ValueError, match=message):
        layouts.pair_masks(place_of(tmp_path, frames, [mask]))


@pytest.mark.parametrize(
    "frames, masks",
    [
        (PLAIN, ["00010_v2"]),
        (PLAIN, ["00020_v2"]),  # no frame's, though the second is one
        (PLAIN, ["mask2_00010"]),
        (PLAIN, ["00001", "00010_v2"]),
        (PLAIN, ["00010_v1", "00011_v2"]),
        (PLAIN, ["00003_v2", "cam1_00003"]),
        (PLAIN[:1], ["00000_v2"]),
        (VERSIONS, ["a_1", "frame_3_v2"]),
        (VERSIONS, ["cam1_2"]),  # where frames have their number, it has another
        (["cam1_0001.jpg", "cam1_0002.jpg"], ["00001_v2"]),
    ],
)
def test_a_mask_of_which_nobody_knows_the_frame_is_refused(tmp_path, frames, masks):
    place = place_of(tmp_path, frames, [f"a/{name}.png" for name in masks])
    with pytest.raises(ValueError, match=f"a/.*: which number .* not clear; .* each .* such as {frames[0][:-4]}.png"):
        layouts.pair_masks(place)


def test_files_of_other_kinds_are_told(tmp_path):
    for name in ("1.jpg", "2.heic", "3.HEIC", "4.gif", "notes.txt", ".hidden"):
        (tmp_path / name).touch()
    told = file_names.describe_left_out(tmp_path, file_names.IMAGE_SUFFIXES)
    assert "3 files of other kinds are left out (.gif, .heic), such as 2.heic" in told
    assert file_names.describe_left_out(tmp_path, (*file_names.IMAGE_SUFFIXES, ".heic", ".gif")) == ""


def test_letters_that_a_mac_took_apart_are_the_same_letters(tmp_path):
    for folder, name in (("image", "\u00e9t\u00e9.jpg"), ("mask", "e\u0301te\u0301.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    ((image, mask),) = layouts.pair_stills(tmp_path)
    assert mask.parent.name == "mask"
    assert file_names.find_named(mask.parent, "\u00e9t\u00e9.png") == mask
    assert file_names.find_named(image.parent, "\u00e9t\u00e9.jpg") == image


def test_two_masks_of_one_still_are_refused(tmp_path):
    for name in ("image/\u00e9.jpg", "mask/\u00e9.png", "mask/e\u0301.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="mask/\u00e9.png: e\u0301.png has this name too, .* accents are spelled; rem"):
        layouts.pair_stills(tmp_path)


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


@pytest.mark.parametrize("name", ["a\nb.mp4", "\u202eabc.mp4", "\x1b[2J.mp4"])
def test_a_video_by_itself_has_a_name_that_can_be_shown(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match="this name holds control characters") as e:
        file_names.list_videos(tmp_path / name)
    assert str(e.value).isprintable()
