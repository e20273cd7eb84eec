"""Video files: frames as players show them, each with its time.

FFmpeg's libraries decode, through PyAV. Frames are those of the command `ffmpeg` (4:2:0 and 10 bits become RGB by the
same code), all of them and none twice: edit lists are applied, and what a container says of its length or rate is no
more than a guess. The display matrix of phones (turned, mirrored) is applied. Interlaced frames are deinterlaced
(yadif, frame for frame): the comb of two moments in one picture is motion to optical flow.

Files are opened as files: `file:` and an absolute path, no other protocol, and none of the formats that name further
files (playlists, ffconcat scripts), so that no name and no content of a video leads anywhere else.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from msst_keras.data import image_files, video_files
from msst_keras.data.file_names import IMAGE_SUFFIXES
from msst_keras.data.video_pictures import Painter, VideoFrame, display_matrix

# Packets that are counted before a video's length is estimated from its duration: ten minutes, a fifth of a second.
_MAX_COUNTED = 20_000
_DEFAULT_RATE = Fraction(25)
# Demuxers of files that hold their pictures themselves. What is missing on purpose: concat, hls, dash, image2, sdp, ...
_FORMATS = (
    "3dostr,alp,amv,anm,apng,asf,asf_o,av1,avi,avs,avs2,avs3,bethsoftvid,bfi,bink,cavsvideo,cdxl,cine,dirac,dnxhd,dv,"
    "dvbsub,dxa,ea,evc,ffm,flic,flv,gif,gxf,h261,h263,h264,hevc,idcin,ivf,jpegxl_anim,kux,live_flv,lvf,lxf,m4v,"
    "matroska,webm,mgsts,mjpeg,mlv,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,mtv,mv,mxf,nsv,nut,obu,ogg,"
    "pmp,r3d,rm,roq,rpl,smk,swf,thp,tiertexseq,ty,vc1,vc1test,viv,vivo,vmd,vvc,wc3movie,wtv,xmv,yop,yuv4mpegpipe"
)


@dataclasses.dataclass(frozen=True)
class VideoFacts:
    """What can be known of a video without decoding it.

    Attributes:
      num_frames: frames to come, by its packets: nearly always right, but no promise.
      frame_rate: frames per second, the mean where it varies.
      sample_aspect: width / height of a pixel of its frames as `read_video` gives them; mostly 1.
    """

    num_frames: int
    frame_rate: Fraction
    sample_aspect: Fraction


def probe_video(path: str | Path) -> VideoFacts:
    """Decodes the first frame, so that an unreadable video is known before hours of work, and counts the packets.

    Raises:
      FileNotFoundError, ValueError: see `read_video`.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        matrix = next((display_matrix(frame) for frame in _decode(container, stream, path)), None)
        if matrix is None:
            raise ValueError(f"{path}: not one frame of this video can be read; fetch or encode it again")
    with _open(path) as container:
        stream = _video_stream(container, path)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        num_frames, frame_rate = _count_packets(container, stream)
    return VideoFacts(num_frames, frame_rate, aspect if matrix[0, 0] or not aspect else 1 / aspect)


def read_video(path: str | Path) -> Iterator[VideoFrame]:
    """Yields the frames of a video file, a few of them in memory at a time.

    A video whose frames change their size goes on in that of the first one.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no video, a playlist, a file that is cut off or damaged, or frames that are too large.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        clock = _Clock(stream)
        painter = Painter(path)
        for frame in _decode(container, stream, path):
            painter.push(frame, clock.tell(frame))
            yield from painter.ready()
        painter.end()
        yield from painter.ready()


class _Clock:
    """The time of each frame, 0 for the first. Files without times, or with some that do not rise, count frames."""

    def __init__(self, stream: av.VideoStream):
        self._step = float(1 / _nominal_rate(stream))
        self._offset: float | None = None
        self._last = -self._step

    def tell(self, frame: av.VideoFrame) -> float:
        """The time of the next frame in seconds, later than that of the frame before."""
        expected, time = self._last + self._step, frame.time
        if time is None:
            self._last = expected
        elif self._offset is None or time <= self._last + self._offset:  # the first, or a jump back: two joined files
            self._offset, self._last = time - expected, expected
        else:
            self._last = time - self._offset
        return self._last


def _open(path: str | Path) -> av.container.InputContainer:
    video_files.check_whole(path)
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS, "max_pixels": str(image_files.MAX_PIXELS)}
    try:
        return av.open("file:" + os.path.abspath(path), options=options)
    except av.FFmpegError as error:
        if isinstance(error, PermissionError):
            raise PermissionError(f"{path}: this file may not be read; change its permissions") from None
        if Path(path).suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(f"{path}: an image; put a video's frames into a folder and give the folder") from None
        raise ValueError(
            f"{path}: not a readable video; expected a file that FFmpeg decodes (MP4, AVI, WebM, ...)"
        ) from None


def _video_stream(container: av.container.InputContainer, path: str | Path) -> av.VideoStream:
    """The stream that players show; the cover of a piece of music is none."""
    stream = container.streams.best("video")
    if stream is None or stream.codec_context is None or stream.disposition & av.stream.Disposition.attached_pic:
        raise ValueError(f"{path}: holds no video that can be decoded; encode it again")
    image_files.check_size(stream.width, stream.height, str(path))
    stream.thread_type = "AUTO"
    return stream


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream, path: str | Path
) -> Iterator[av.VideoFrame]:
    """Yields the decoded frames. What lies before the first key frame cannot be decoded and is left out."""
    count, packets = 0, container.demux(stream)
    while True:
        packet = None
        frames: list[av.VideoFrame] = []
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet else []
        except av.FFmpegError as error:
            if count or packet is None:
                raise _damage(path, count, error.strerror) from None
        if packet is None:
            return
        for frame in frames:
            if frame.is_corrupt:
                raise _damage(path, count, "a part of the picture is missing")
            yield frame
            count += 1


def _damage(path: str | Path, count: int, reason: str) -> ValueError:
    return ValueError(
        f"{path}: cut off or damaged: cannot be decoded after frame {count} ({reason}); fetch or encode the video again"
    )


def _count_packets(container: av.container.InputContainer, stream: av.VideoStream) -> tuple[int, Fraction]:
    """(frames, frames per second), by the packets and their times."""
    count, first, last, has_begun = 0, None, None, False
    for packet in _healthy(container.demux(stream)):
        has_begun = has_begun or packet.is_keyframe
        if not packet.size or packet.is_discard or not has_begun:
            continue
        count += 1
        if packet.pts is not None:
            first = packet.pts if first is None else min(first, packet.pts)
            last = packet.pts if last is None else max(last, packet.pts)
        if count == _MAX_COUNTED:
            break
    rate = _nominal_rate(stream)
    if first is not None and last > first and count > 1:
        mean = (count - 1) / ((last - first) * stream.time_base)
        # Times are often rounded to milliseconds: 29.97 is then nearer to the truth than what is counted.
        rate = rate if abs(mean / rate - 1) < 0.005 else mean.limit_denominator(1001) or mean
    if count == _MAX_COUNTED and container.duration:
        count = max(count, round(rate * Fraction(container.duration, av.time_base)))
    return count, rate


def _healthy(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """The packets up to the first that cannot be read: `read_video` will say so when it comes there."""
    try:
        yield from packets
    except av.FFmpegError:
        return


def _nominal_rate(stream: av.VideoStream) -> Fraction:
    """What the container says, which may be far from the truth."""
    rates = (stream.guessed_rate, stream.average_rate, stream.base_rate)
    return next((rate for rate in rates if rate and 0 < rate <= 1000), _DEFAULT_RATE)
