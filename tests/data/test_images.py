"""Image files: what is read back, what other decoders make of the same bytes, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from msst_keras.data import flow_files, images
from msst_keras.data.masks import read_mask


def make_photo(height=48, width=67, channels=3, seed=0):
    """A smooth uint8 image whose edges are sharp enough to show differences between JPEG decoders."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 11, channels)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, channels)


def encode(image, image_format="PNG", **options):
    """Bytes of a Pillow image or an array."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_pixels_are_those_of_opencv_and_tensorflow(subsampling, progressive):
    import tensorflow as tf

    for array in (make_photo(), make_photo(channels=1)[..., 0]):
        encoded = encode(array, "JPEG", quality=80, subsampling=subsampling, progressive=progressive)
        ours = images.decode_frame(encoded, "frame")
        opencv = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        tensorflow = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE").numpy()
        np.testing.assert_array_equal(ours, opencv)
        np.testing.assert_array_equal(ours, tensorflow)


def test_jpeg_pixels_of_real_frames_are_those_of_opencv(real_data):
    for path in sorted((real_data / "davis16/JPEGImages/480p").glob("*/00010.jpg")):
        np.testing.assert_array_equal(images.read_frame(path), cv2.imread(str(path))[..., ::-1])


def test_bytes_that_are_plain_give_tensorflow_the_same_pixels():
    import tensorflow as tf

    photo = make_photo()
    palette = Image.fromarray(photo).quantize(16)
    opaque = np.dstack([photo, np.full((48, 67), 255, np.uint8)])
    cases = [  # encoded, whether plain
        (encode(photo), True),
        (encode(photo[..., 0]), True),
        (encode(photo, "JPEG"), True),
        (encode(photo, "MPO", save_all=True, append_images=[Image.fromarray(photo[::-1])]), True),  # two pictures
        (encode(photo, "BMP"), False),
        (encode(palette), False),
        (encode(opaque), False),
    ]
    for encoded, plain in cases:
        assert images.is_plain(encoded) == plain
        if plain:
            decoded = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE").numpy()
            np.testing.assert_array_equal(images.decode_frame(encoded, "frame"), decoded)


def test_grey_palette_and_opaque_frames_become_rgb():
    grey = np.array([[0, 7], [128, 255]], np.uint8)
    expected = np.stack([grey] * 3, axis=2)
    opaque = np.dstack([expected, np.full((2, 2), 255, np.uint8)])
    for encoded in (encode(grey), encode(opaque), encode(Image.fromarray(grey).convert("P"))):
        np.testing.assert_array_equal(images.decode_frame(encoded, "frame"), expected)


# EXIF orientation -> the picture that is shown of a stored one.
TURNS = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image.swapaxes(0, 1), 2),
    8: lambda image: np.rot90(image),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(tmp_path, image_format, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    photo = make_photo()
    options = {"lossless": True} if image_format == "WEBP" else {"quality": 100} if image_format == "JPEG" else {}
    encoded = encode(photo, image_format, exif=exif, **options)
    expected = TURNS[turn](photo)
    shown = images.decode_frame(encoded, "frame")
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < (3 if image_format == "JPEG" else 0.001)
    assert not images.is_plain(encoded)  # so that records hold a PNG that lies right
    (tmp_path / "frame").write_bytes(encoded)
    assert images.read_image_size(tmp_path / "frame") == expected.shape[:2]
    (tmp_path / "mask").write_bytes(encode((photo[..., 0] > 128) * np.uint8(255), image_format, exif=exif, **options))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask", "half"), TURNS[turn](photo[..., 0] > 128))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's own
@pytest.mark.parametrize(
    "data", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(60), b"x" * 40]
)
def test_damaged_exif_data_turns_nothing(data):
    photo = make_photo()
    encoded = encode(photo, "JPEG", quality=100, exif=data)
    assert np.abs(images.decode_frame(encoded, "frame").astype(int) - photo).mean() < 3


@pytest.mark.parametrize("progressive", [False, True])
def test_what_follows_the_end_of_a_jpeg_does_not_matter(progressive):
    encoded = encode(make_photo(), "JPEG", progressive=progressive)
    thumbnail = encode(make_photo(12, 16), "JPEG")
    for tail in (b"\xff\xda" + bytes(50), b"\0\0\0\x18ftypmp42" + thumbnail[:-2], b"\xff\xd9\xff\xda"):
        np.testing.assert_array_equal(
            images.decode_frame(encoded + tail, "motion.jpg"), images.decode_frame(encoded, "frame.jpg")
        )
        with pytest.raises(ValueError, match="motion.jpg: cut off or damaged"):
            images.decode_frame(encoded[:-2] + bytes(2), "motion.jpg")
    inner = Image.Exif()
    inner[0x010E] = thumbnail.decode("latin-1")  # an end of image within a segment is none
    assert images.decode_frame(encode(make_photo(), "JPEG", exif=inner), "frame").shape == (48, 67, 3)


def test_frames_that_8_bit_rgb_cannot_represent_are_refused(tmp_path):
    transparent = np.full((4, 4, 4), 255, np.uint8)
    transparent[1, 1, 3] = 254
    grey16 = encode(np.full((4, 4), 40000, np.uint16))
    colour16 = cv2.imencode(".png", np.full((4, 4, 3), 40000, np.uint16))[1].tobytes()
    for encoded, message in [
        (encode(transparent), "holiday.png: expected an opaque image, found transparent pixels"),
        (grey16, "holiday.png: expected 8 bits a channel, found 16"),
        (colour16, "holiday.png: expected 8 bits a channel, found 16"),
        (encode(Image.new("CMYK", (4, 4)), "JPEG"), "holiday.png: a frame must be 8-bit RGB or grey, .* mode CMYK"),
    ]:
        with pytest.raises(ValueError, match=message):
            images.decode_frame(encoded, "holiday.png")
    palette = Image.fromarray(make_photo()).quantize(16)
    with pytest.raises(ValueError, match="transparent"):
        images.decode_frame(encode(palette, transparency=0), "palette.png")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP"])
def test_files_cut_off_anywhere_are_refused(image_format):
    encoded = encode(make_photo(width=68), image_format)
    for length in (len(encoded) // 2, len(encoded) - 60, len(encoded) - 2):  # the last cuts off JPEG's end marker alone
        with pytest.raises(ValueError, match="^cut.jpg: cut off or damaged"):
            images.decode_frame(encoded[:length], "cut.jpg")


def test_files_that_are_no_images_or_missing(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ValueError, match="text.jpg: not a readable image; expected one of JPEG, PNG"):
        images.read_frame(tmp_path / "text.jpg")
    with pytest.raises(ValueError, match="empty: not a readable image"):
        images.decode_frame(b"", "empty")
    for read in (images.read_frame, images.read_map, flow_files.read_flow, lambda path: read_mask(path, "half")):
        with pytest.raises(FileNotFoundError, match="nothing.png: no such file"):
            read(tmp_path / "nothing.png")
    with pytest.raises(FileNotFoundError, match="no such file"):
        images.read_frame(tmp_path)


@pytest.mark.parametrize("side", [9500, 16384])  # Pillow warns of the first and refuses the second
def test_sizes_that_would_fill_the_memory_are_refused(side):
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    encoded = encode(Image.new("1", (1, 1)))
    bomb = encoded[:8] + chunk + encoded[8 + len(chunk) :]
    with pytest.raises(ValueError, match="bomb.png: .*pixels"):
        images.decode_frame(bomb, "bomb.png")
    flow = flow_files.encode_flow_png(np.zeros((1, 1, 2)))
    with pytest.raises(ValueError, match=f"{side}x{side} pixels, more than the limit of 89478485"):
        flow_files.decode_flow_png(flow[:16] + struct.pack(">II", side, side) + flow[24:], "flow.png")


def test_the_size_is_read_from_the_header(tmp_path):
    (tmp_path / "frame.png").write_bytes(encode(make_photo())[:100])
    assert images.read_image_size(tmp_path / "frame.png") == (48, 67)


def test_maps_of_0_and_1_are_told_from_maps_of_0_to_255(tmp_path):
    def write(*highest):
        for number, level in enumerate(highest):
            (tmp_path / f"{number}.png").write_bytes(encode(np.array([[0, level]], np.uint8)))
        return [tmp_path / f"{number}.png" for number in range(len(highest))]

    for highest in ((0, 0), (0, 1, 2), (255, 1)):  # a method may see nothing in one frame, or in all
        images.check_scale(write(*highest), "maps")
    for highest in ((0, 1), (1, 1, 1)):
        with pytest.raises(ValueError, match="maps: expected maps of 0 to 255, found nothing above 1 in any of them"):
            images.check_scale(write(*highest), "maps")


def test_png_round_trip_and_jpeg_closeness():
    photo = make_photo()
    np.testing.assert_array_equal(images.decode_frame(images.encode_png(photo), "frame"), photo)
    np.testing.assert_array_equal(images.decode_frame(images.encode_png(photo[..., 0]), "frame")[..., 1], photo[..., 0])
    decoded = images.decode_frame(images.encode_jpeg(photo), "frame").astype(int)
    assert np.abs(decoded - photo).mean() < 4  # most of it from colours at half the resolution
    assert len(images.encode_jpeg(photo, quality=30)) < len(images.encode_jpeg(photo)) / 2


def test_arrays_of_the_wrong_kind_are_not_encoded():
    with pytest.raises(ValueError, match=r"uint8 \(H, W\) or \(H, W, 3\), not float32 \(4, 4\)"):
        images.encode_png(np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match=r"not uint8 \(4, 4, 2\)"):
        images.encode_png(np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(ValueError, match=r"a frame must be uint8 \(H, W, 3\), not uint8 \(4, 4\)"):
        images.encode_jpeg(np.zeros((4, 4), np.uint8))


def test_map_round_trip(tmp_path):
    levels = np.arange(256, dtype=np.float32).reshape(16, 16) / 255
    for offset in (0, 0.4, -0.4):  # of a step, all of which round to the level
        images.write_map(tmp_path / "maps/a.png", np.clip(levels + np.float32(offset / 255), 0, 1))
        read = images.read_map(tmp_path / "maps/a.png")
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, levels)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["a.png"]


def test_maps_that_are_none(tmp_path):
    path = tmp_path / "map.png"
    for saliency in (np.array([[0, 1.01]]), np.array([[-0.01, 1]]), np.array([[np.nan, 1]])):
        with pytest.raises(ValueError, match=r"map.png: a map must lie in \[0, 1\], found"):
            images.write_map(path, saliency)
    with pytest.raises(ValueError, match=r"map.png: a map must be \(H, W\), not \(1, 2, 1\)"):
        images.write_map(path, np.zeros((1, 2, 1)))
    assert not path.exists()
    path.write_bytes(encode(make_photo()))
    with pytest.raises(ValueError, match="map.png: a map must be 8-bit grey, this is of mode RGB"):
        images.read_map(path)


def test_a_png_whose_checksum_is_wrong_is_refused(tmp_path):
    # Pillow checks none of pixels, and OpenCV takes what it can get.
    frame = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for name, encoded, decode in (
        ("frame", images.encode_png(frame), images.decode_frame),
        ("flow", flow_files.encode_flow_png(frame[..., :2].astype(np.float32)), flow_files.decode_flow_png),
    ):
        spoiled = bytearray(encoded)
        spoiled[-14] ^= 1  # of the checksum of the last chunk of pixels
        with pytest.raises(ValueError, match=f"{name}: cut off or damaged .a checksum is wrong"):
            decode(bytes(spoiled), name)
        with pytest.raises(ValueError, match=f"{name}: cut off or damaged"):
            decode(encoded[:-12], name)
