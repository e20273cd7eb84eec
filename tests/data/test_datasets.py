"""Dataset trees: which frames and masks are found, in which order, and what is read of them."""

from __future__ import annotations

import shutil
import tracemalloc
import unicodedata

import cv2
import numpy as np
import pytest
from PIL import Image

from msst_keras.data import datasets, images

SIZE = (12, 16)


def save(path, value, size=SIZE):
    """Writes an image file of one value (grey) or colour, made by Pillow from the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, *np.shape(value)), value, np.uint8)).save(path)


def make_davis(root, names=("bear", "camel"), level="480p", num_frames=3):
    for name in names:
        for i in range(num_frames):
            save(root / "JPEGImages" / level / name / f"{i:05d}.jpg", (10 * i, 0, 0))
            save(root / "Annotations" / level / name / f"{i:05d}.png", 1)


def make_video(path, num_frames=20, size=(48, 64), frame_rate=10):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), frame_rate, size[::-1])
    for i in range(num_frames):
        writer.write(np.full((*size, 3), (0, 0, 10 * i), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("level", ["480p", ""])
def test_davis_tree(tmp_path, level):
    make_davis(tmp_path, level=level)
    bear, camel = datasets.find_sequences("davis", tmp_path)
    assert (bear.name, camel.name, len(bear)) == ("bear", "camel", 3)
    assert bear.frame_names == ("00000", "00001", "00002")
    assert sorted(bear.mask_paths) == [0, 1, 2]
    assert camel.mask_paths[1] == (tmp_path / "Annotations" / level / "camel" / "00001.png",)
    assert bear.read_mask(2).all()  # a mask of ones


def test_davis_splits_are_the_official_lists(tmp_path):
    make_davis(tmp_path, names=("bear", "camel", "mine"), num_frames=1)
    splits = ("train", "val", "all")
    names = {split: [s.name for s in datasets.find_sequences("davis", tmp_path, split)] for split in splits}
    assert names == {"train": ["bear"], "val": ["camel"], "all": ["bear", "camel", "mine"]}
    lists = datasets.layouts.DAVIS_SPLITS
    assert (len(lists["train"].split()), len(lists["val"].split())) == (30, 20)
    assert not set(lists["train"].split()) & set(lists["val"].split())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_names_in_a_list_are_those_of_the_folders(tmp_path, encoding, end):
    names = ["day 2, Z\u00fcrich", "\u904b\u52d5\u4f1a\u3000\u4e8c"]
    make_davis(tmp_path, [*names, "other"], num_frames=1)
    (tmp_path / "ImageSets/480p").mkdir(parents=True)
    (tmp_path / "ImageSets/480p/train.txt").write_bytes(end.join([*names, ""]).encode(encoding))
    assert [sequence.name for sequence in datasets.find_sequences("davis", tmp_path, "train")] == names


def test_davis_splits_of_the_tree_come_first(tmp_path):
    make_davis(tmp_path, names=("bear", "camel", "mine"), num_frames=1)
    lists = tmp_path / "ImageSets/480p"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("/JPEGImages/480p/mine/00000.jpg /Annotations/480p/mine/00000.png\n\n")
    (lists / "val.txt").write_text("bear\ncamel\n")
    assert [s.name for s in datasets.find_sequences("davis", tmp_path, "train")] == ["mine"]
    assert [s.name for s in datasets.find_sequences("davis", tmp_path, "val")] == ["bear", "camel"]
    (lists / "val.txt").write_text("goat\n")
    with pytest.raises(FileNotFoundError, match="JPEGImages/480p/goat: no such folder"):
        datasets.find_sequences("davis", tmp_path, "val")


def test_sequences_are_chosen_by_name(tmp_path):
    make_davis(tmp_path, names=("bear", "boat", "bus"), num_frames=1)
    (tmp_path / "JPEGImages/480p/boat/00000.jpg").unlink()  # not asked for, so not looked into
    assert [s.name for s in datasets.find_sequences("davis", tmp_path, sequences=["bus", "bear"])] == ["bear", "bus"]
    with pytest.raises(ValueError, match="no sequence cow, goat in split train; there are bear, boat, bus$"):
        datasets.find_sequences("davis", tmp_path, "train", ["goat", "bear", "cow"])


def spell(form):
    return unicodedata.normalize(form, "caf\u00e9")


@pytest.mark.parametrize("ours, theirs", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_spelled_otherwise(tmp_path, ours, theirs):
    """Masks and lists may come from a Mac, whose file systems take accents apart, and frames from elsewhere."""
    for frames, masks, dataset in (
        ("JPEGImages/480p", "Annotations/480p", "davis"),
        ("JPEGImages", "GroundTruth", "s"),
    ):
        save(tmp_path / dataset / frames / spell(ours) / "1.png", (1, 2, 3))
        save(tmp_path / dataset / masks / spell(theirs) / "1.png", 255)
    (tmp_path / "davis/ImageSets/480p").mkdir(parents=True)
    (tmp_path / "davis/ImageSets/480p/train.txt").write_text(spell(theirs), encoding="utf-8")
    for found in (
        datasets.find_sequences("davis", tmp_path / "davis"),
        datasets.find_sequences("davis", tmp_path / "davis", "train"),
        datasets.find_sequences("segtrackv2", tmp_path / "s", sequences=[spell(theirs)]),
    ):
        assert [(sequence.name, list(sequence.mask_paths)) for sequence in found] == [(spell(ours), [0])]
    shutil.rmtree(tmp_path / "davis/JPEGImages")  # the masks stand for the frames then
    (bare,) = datasets.find_sequences("davis", tmp_path / "davis", needs_frames=False)
    assert (bare.name, len(bare)) == (spell(theirs), 1)


def test_two_sequences_of_one_name_are_refused_however_it_is_spelled(tmp_path):
    for form in ("NFC", "NFD"):
        save(tmp_path / "JPEGImages" / spell(form) / "1.png", (1, 2, 3))
    with pytest.raises(ValueError, match="called caf\u00e9, with accents that are spelled otherwise; rename"):
        datasets.find_sequences("davis", tmp_path)


def test_fbms_masks_are_sparse_and_the_ppm_counts(tmp_path):
    folder = tmp_path / "Trainingset/camel01"
    for number in (9, 10, 11):
        save(folder / f"camel01_{number}.jpg", (0, 0, 0))
    save(folder / "GroundTruth/camel01_0009_gt.ppm", (255, 255, 255))
    save(folder / "GroundTruth/camel01_0009_gt.pgm", 0)
    save(folder / "GroundTruth/camel01_0009_PROB_gt.ppm", (0, 0, 0))
    save(folder / "GroundTruth/camel01_0011_gt.ppm", (0, 255, 255))
    (folder / "GroundTruth/camel01Def.dat").write_text("regions")
    save(tmp_path / "Testset/cars1/cars1_01.jpg", (0, 0, 0))
    save(tmp_path / "Testset/cars1/GroundTruth/cars1_01.pgm", 0)
    (camel,) = datasets.find_sequences("fbms", tmp_path, "train")
    assert camel.frame_names == ("camel01_9", "camel01_10", "camel01_11")
    assert {i: bool(camel.read_mask(i).all()) for i in camel.mask_paths} == {0: False, 2: True}
    assert camel.read_mask(1) is None
    (cars,) = datasets.find_sequences("fbms", tmp_path, "val")
    assert not cars.read_mask(0).any()
    assert [s.name for s in datasets.find_sequences("fbms", tmp_path)] == ["camel01", "cars1"]


def test_segtrackv2_unites_objects(tmp_path):
    for number in (7, 8):
        save(tmp_path / f"JPEGImages/birds/a2_{number}.png", (1, 2, 3))
    for number, columns in ((1, slice(0, 4)), (2, slice(10, 12))):
        mask = np.zeros(SIZE, np.uint8)
        mask[:, columns] = 200
        (tmp_path / f"GroundTruth/birds/{number}").mkdir(parents=True)
        Image.fromarray(mask).save(tmp_path / f"GroundTruth/birds/{number}/a2_8.bmp")
    save(tmp_path / "JPEGImages/frog/1.png", (1, 2, 3))
    save(tmp_path / "GroundTruth/frog/1.png", 255)
    birds, frog = datasets.find_sequences("segtrackv2", tmp_path)
    assert sorted(birds.mask_paths) == [1]
    assert birds.read_mask(1)[0].nonzero()[0].tolist() == [0, 1, 2, 3, 10, 11]
    assert frog.read_mask(0).all()


@pytest.mark.parametrize("names", [("image", "mask"), ("DUTS-TR-Image", "DUTS-TR-Mask")])
def test_stills_are_sequences_of_one_frame(tmp_path, names):
    for stem in ("cat", "dog"):
        save(tmp_path / names[0] / f"{stem}.jpg", (9, 9, 9))
        save(tmp_path / names[1] / f"{stem}.png", 255)
    cat, dog = datasets.find_sequences("stills", tmp_path)
    assert (cat.name, cat.frame_names, len(dog), dog.read_mask(0).all()) == ("cat", ("cat",), 1, True)
    message = f"is not in both {names[0]} and {names[1]}; each image needs its mask"
    (tmp_path / names[1] / "cat.png").unlink()
    with pytest.raises(ValueError, match=f"cat {message}"):
        datasets.find_sequences("stills", tmp_path)
    (tmp_path / names[0] / "cat.jpg").unlink()
    save(tmp_path / names[1] / "ape.png", 255)
    with pytest.raises(ValueError, match=f"ape {message}"):
        datasets.find_sequences("stills", tmp_path)


def test_folder_of_frames_and_folder_of_folders(tmp_path):
    for number in (10, 2, 1):
        save(tmp_path / f"one/frame{number}.png", (number, 0, 0))
    save(tmp_path / "one/._frame1.png", (0, 0, 0))
    save(tmp_path / "two/1.jpg", (0, 0, 0))
    (tmp_path / "empty").mkdir()
    (one,) = datasets.find_sequences("folder", tmp_path / "one")
    assert (one.name, one.frame_names) == ("one", ("frame1", "frame2", "frame10"))
    assert [frame[0, 0, 0] for _, _, frame in one.read_frames()] == [1, 2, 10]
    assert one.mask_paths == {} and one.read_mask(0) is None
    assert [s.name for s in datasets.find_sequences("folder", tmp_path)] == ["one", "two"]
    save(tmp_path / "3.jpg", (0, 0, 0))
    with pytest.raises(ValueError, match=r"holds frames and folders of frames \(one\)"):
        datasets.find_sequences("folder", tmp_path)


def test_what_lies_beside_folders_of_frames_is_said(tmp_path, capsys):
    save(tmp_path / "a/00000.jpg", 1)
    (tmp_path / "b").mkdir()
    for name in ("b/video.mp4", "video.mp4", "notes.txt"):
        (tmp_path / name).touch()
    assert [sequence.name for sequence in datasets.find_sequences("folder", tmp_path)] == ["a"]
    said = capsys.readouterr().err
    assert "1 files of other kinds are left out (.mp4), such as video.mp4" in said
    assert f"1 folders without frames are left out, such as {tmp_path}/b" in said
    datasets.find_sequences("folder", tmp_path / "a")
    assert capsys.readouterr().err == ""


def test_what_is_missing_or_left_out_is_said(tmp_path, capsys):
    for number in (0, 1, 2, 7):
        save(tmp_path / f"walk/{number}.png", (number, 0, 0))
    (tmp_path / "walk/3.heic").touch()
    datasets.find_sequences("folder", tmp_path)
    said = capsys.readouterr().err
    assert "note: " in said and "1 files of other kinds are left out (.heic), such as 3.heic" in said
    assert "frames are missing in one place, between 2.png and 7.png" in said


def test_a_folder_of_videos_is_no_folder_of_frames(tmp_path):
    make_video(tmp_path / "one.mp4", 3)
    make_video(tmp_path / "two.mp4", 3)
    with pytest.raises(ValueError, match=r"holds videos, not frames \(one.mp4, 2 in all\); give the video files"):
        datasets.find_sequences("folder", tmp_path)


def test_a_video_whose_name_would_lead_out_of_the_output_folder_is_refused(tmp_path):
    make_video(tmp_path / "a.mp4", 3).rename(tmp_path / "...mp4")
    with pytest.raises(ValueError, match=r"a sequence would be called '..', which is no name of a folder; rename it"):
        datasets.find_sequences("video", tmp_path / "...mp4")


def test_masks_stand_for_frames_where_these_are_not_needed(tmp_path):
    make_davis(tmp_path)
    shutil.rmtree(tmp_path / "JPEGImages")
    with pytest.raises(FileNotFoundError, match="JPEGImages/bear: no such folder"):
        datasets.find_sequences("davis", tmp_path)
    bear, camel = datasets.find_sequences("davis", tmp_path, needs_frames=False)
    assert bear.frame_names == ("00000", "00001", "00002") and bear.read_mask(1).all()


def test_folder_of_frames_with_its_masks_as_fbms_has_them(tmp_path):
    save(tmp_path / "camel_01.jpg", (0, 0, 0))
    save(tmp_path / "GroundTruth/camel_01_gt.png", (0, 0, 0))
    (sequence,) = datasets.find_sequences("folder", tmp_path)
    assert sequence.frame_names == ("camel_01",)


def test_frame_bytes_stay_or_become_png(tmp_path):
    photo = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8), SIZE[::-1])
    for number, suffix in enumerate((".jpg", ".png", ".bmp")):
        Image.fromarray(photo).save(tmp_path / f"{number}{suffix}")
    Image.fromarray(photo).quantize(16).save(tmp_path / "3.png")
    (sequence,) = datasets.find_sequences("folder", tmp_path)
    kept = []
    for path, (name, encoded, frame) in zip(sequence.frame_paths, sequence.read_frames(), strict=True):
        assert name == path.stem
        np.testing.assert_array_equal(images.decode_frame(encoded, name), frame)
        np.testing.assert_array_equal(images.read_frame(path), frame)
        assert images.is_plain(encoded)
        kept.append(encoded == path.read_bytes())
    assert kept == [True, True, False, False]


def test_frames_and_masks_of_other_sizes_are_refused(tmp_path):
    make_davis(tmp_path, names=("bear",))
    save(tmp_path / "Annotations/480p/bear/00001.png", 1, (10, 16))
    save(tmp_path / "JPEGImages/480p/bear/00002.jpg", (0, 0, 0), (12, 18))
    (bear,) = datasets.find_sequences("davis", tmp_path)
    with pytest.raises(ValueError, match=r"bear/00001.png: this mask is 10x16, but .*bear/00001.jpg is 12x16"):
        bear.read_mask(1)
    with pytest.raises(ValueError, match="bear: frame 00002 is 12x18, but 00000 is 12x16; the frames"):
        list(bear.read_frames())
    (tmp_path / "JPEGImages/480p/bear/00001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="00001.jpg"):
        list(bear.read_frames())


def test_frames_whose_order_is_not_clear_are_refused(tmp_path):
    save(tmp_path / "twice/a_007.jpg", (0, 0, 0))
    save(tmp_path / "twice/a_7.png", (0, 0, 0))
    with pytest.raises(ValueError, match="twice/a_7.png: the number 7 is that of a_007.jpg too"):
        datasets.find_sequences("folder", tmp_path / "twice")
    for name in ("1305031102.975.png", "1305031103.175.png"):  # seconds and milliseconds
        save(tmp_path / "times" / name, (0, 0, 0))
    with pytest.raises(ValueError, match="1103.175.png: the last number .* is smaller than in 1305031102.975.png"):
        datasets.find_sequences("folder", tmp_path / "times")
    save(tmp_path / "words/first.jpg", (0, 0, 0))
    with pytest.raises(ValueError, match="words/first.jpg: no number in this name"):
        datasets.find_sequences("folder", tmp_path / "words")


def test_masks_and_frames_that_miss_each_other_are_refused(tmp_path):
    make_davis(tmp_path, names=("bear",), num_frames=2)
    save(tmp_path / "Annotations/480p/bear/00007.png", 1)
    with pytest.raises(ValueError, match="bear/00007.png: a mask without its frame; .*bear has none of number 7"):
        datasets.find_sequences("davis", tmp_path)
    for path in (tmp_path / "Annotations/480p/bear").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="Annotations/480p/bear: no masks here; frames without any"):
        datasets.find_sequences("davis", tmp_path)
    (tmp_path / "JPEGImages/480p/goat").mkdir()
    with pytest.raises(ValueError, match="JPEGImages/480p/goat: no frames here; expected image files"):
        datasets.find_sequences("davis", tmp_path, sequences=["goat"])
    (tmp_path / "Annotations/480p/cow").mkdir()
    with pytest.raises(FileNotFoundError, match="JPEGImages/480p/cow: no such folder"):
        datasets.find_sequences("davis", tmp_path, sequences=["cow"])


def test_trees_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="dataset must be one of davis, fbms, .*, video, not 'coco'"):
        datasets.find_sequences("coco", tmp_path)
    with pytest.raises(ValueError, match="segtrackv2 has no split 'train'; take all$"):
        datasets.find_sequences("segtrackv2", tmp_path, "train")
    with pytest.raises(ValueError, match="davis has no split 'test'; take train, val or all$"):
        datasets.find_sequences("davis", tmp_path, "test")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        datasets.find_sequences("davis", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        datasets.find_sequences("video", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="vidoe.mp4: no such file or folder"):  # as `msst predict` asks for it
        datasets.find_sequences("folder", tmp_path / "vidoe.mp4")
    with pytest.raises(FileNotFoundError, match="JPEGImages: no such folder; give the folder above it"):
        datasets.find_sequences("davis", tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder Trainingset or Testset here"):
        datasets.find_sequences("fbms", tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder image or Image or DUTS-TR-Image or DUTS-TE-Image here"):
        datasets.find_sequences("stills", tmp_path)
    for dataset, expected in (("folder", "image files"), ("video", r"a video file, or a folder .*\.mp4")):
        with pytest.raises(ValueError, match=f"no sequence here; expected {expected}"):
            datasets.find_sequences(dataset, tmp_path)


def test_a_split_of_ones_own_sequences_is_told_from_a_wrong_tree(tmp_path):
    make_davis(tmp_path, names=("mine", "yours"))
    with pytest.raises(ValueError, match=r"none of the 2 sequences here \(mine, yours\) is in the split train"):
        datasets.find_sequences("davis", tmp_path, "train")


def test_flat_masks_are_scored_by_name(tmp_path):
    save(tmp_path / "cat.png", 255)
    save(tmp_path / "dog.png", 0)
    masks = datasets.find_flat_masks(tmp_path)
    assert masks.frame_names == ("cat", "dog")
    assert [masks.read_mask(i).all() for i in sorted(masks.mask_paths)] == [True, False]
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="none: no masks here"):
        datasets.find_flat_masks(tmp_path / "none")


def test_video_frames_are_all_read_and_agree_with_their_bytes(tmp_path):
    path = make_video(tmp_path / "clip.mp4")
    (video,) = datasets.find_sequences("video", path)
    assert (video.name, len(video), video.frame_rate) == ("clip", 20, 10)
    for i, (name, encoded, frame) in enumerate(video.read_frames()):
        assert name == f"{i:05d}" == video.frame_names[i]
        assert encoded[:2] == b"\xff\xd8"
        np.testing.assert_array_equal(images.decode_frame(encoded, name), frame)
        np.testing.assert_allclose(frame.mean(axis=(0, 1)), (10 * i, 0, 0), atol=8)  # red, not blue
    assert i == 19 and video.read_mask(0) is None


def test_images_of_videos_and_folders_come_with_their_times(tmp_path):
    (video,) = datasets.find_sequences("video", make_video(tmp_path / "clip.mp4"))
    for i, (name, image, seconds) in enumerate(video.read_images()):
        assert name == f"{i:05d}" and seconds == pytest.approx(i / 10)
        np.testing.assert_allclose(image.mean(axis=(0, 1)), (10 * i, 0, 0), atol=8)
    save(tmp_path / "one/1.png", (1, 0, 0))
    save(tmp_path / "one/2.png", (2, 0, 0))
    (folder,) = datasets.find_sequences("folder", tmp_path / "one")
    found = [(name, image[0, 0, 0], seconds) for name, image, seconds in folder.read_images()]
    assert found == [("1", 1, 0), ("2", 2, 1 / 24)]


def test_video_is_read_in_constant_memory(tmp_path):
    (video,) = datasets.find_sequences("video", make_video(tmp_path / "clip.mp4", num_frames=60, size=(240, 320)))
    tracemalloc.start()
    count = sum(1 for _ in video.read_frames())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 60 and peak < 8 * 240 * 320 * 3


def test_videos_in_a_folder(tmp_path):
    make_video(tmp_path / "b.mp4", 3)
    make_video(tmp_path / "a.MP4", 3)
    (tmp_path / "notes.txt").write_text("no video")
    assert [s.name for s in datasets.find_sequences("video", tmp_path)] == ["a", "b"]
    make_video(tmp_path / "a.avi", 3)
    with pytest.raises(ValueError, match="two sequences are called a; rename one"):
        datasets.find_sequences("video", tmp_path)


def test_videos_that_cannot_be_read_are_refused(tmp_path, capfd):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="text.mp4: not a readable video; expected a file that FFmpeg decodes"):
        datasets.find_sequences("video", tmp_path / "text.mp4")
    path = make_video(tmp_path / "clip.avi", num_frames=100)
    (video,) = datasets.find_sequences("video", path)
    path.write_bytes(path.read_bytes()[:12000])
    with pytest.raises(ValueError, match=r"clip.avi: cut off or damaged: has 12000 bytes, and its parts need \d+"):
        list(video.read_frames())
    path.unlink()
    with pytest.raises(FileNotFoundError, match="clip.avi: no such video file"):
        list(video.read_frames())


def test_real_trees(real_data):
    (camel,) = datasets.find_sequences("fbms", real_data / "fbms")
    assert len(camel) == sum(1 for _ in camel.read_frames()) == 21
    assert [camel.frame_names[i] for i in camel.mask_paths] == ["camel01_0001", "camel01_0020"]
    assert [camel.read_mask(i).sum() for i in camel.mask_paths] == [16619, 15996]
    (girl,) = datasets.find_sequences("segtrackv2", real_data / "segtrackv2")
    assert len(girl) == len(girl.mask_paths) == 21
    assert all(0.05 < girl.read_mask(i).mean() < 0.08 for i in range(21))
    val = datasets.find_sequences("davis", real_data / "davis16", "val")
    assert len(val) == 10 and sum(len(s) for s in val) == 717
    assert len(datasets.find_sequences("stills", real_data / "duts")) == 10553


def test_real_video(real_data):
    (dog,) = datasets.find_sequences("video", real_data / "videos", sequences=["dog"])
    assert len(dog) == 289 and abs(dog.frame_rate - 29.97) < 0.01
    assert sum(1 for _ in dog.read_frames()) == 289


@pytest.mark.parametrize(
    "turn, to_shown", [(3, lambda image: image[::-1, ::-1]), (6, lambda image: np.rot90(image, -1))]
)
def test_a_photo_of_a_phone_lies_as_its_mask(tmp_path, turn, to_shown):
    """The camera stores the picture as its sensor lies, and masks are drawn on what is shown."""
    stored = np.zeros((40, 24, 3), np.uint8)
    stored[4:14, 3:9] = 255
    exif = Image.Exif()
    exif[0x0112] = turn
    for folder in ("image", "mask"):
        (tmp_path / folder).mkdir()
    Image.fromarray(stored).save(tmp_path / "image/photo.jpg", quality=100, exif=exif)
    Image.fromarray(to_shown(stored)[..., 0]).save(tmp_path / "mask/photo.png")
    (photo,) = datasets.find_sequences("stills", tmp_path)
    ((_, encoded, frame),) = photo.read_frames()
    for shown in (frame, images.decode_frame(encoded, "what records hold")):
        np.testing.assert_array_equal(shown[..., 0] > 127, photo.read_mask(0))
    assert cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED).shape == frame.shape
    ((_, image, _),) = photo.read_images()  # what `predict` sees
    np.testing.assert_array_equal(image, frame)


def test_videos_named_by_systems_are_found_beside_each_other(tmp_path):
    names = [
        "Recording at 3.15.20\u202fPM",
        "Z\u00e1znam\u00a013",
        "\u904b\u52d5\u4f1a\u3000",
        "\u0641\u200c",
        "\U0001f468\u200d\U0001f469",
    ]
    for name in names:
        make_video(tmp_path / "a.mp4", 3).rename(tmp_path / f"{name}.mp4")
    assert sorted(video.name for video in datasets.find_sequences("video", tmp_path)) == sorted(names)
