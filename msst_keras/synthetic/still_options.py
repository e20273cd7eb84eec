"""How stills may move: the ranges and shares that a clip is drawn from, each with its reason."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class StillMotionOptions:
    """How a still moves. Speeds are in short sides of the still per frame; ranges are drawn evenly.

    Those that `scenes.SceneOptions` has too are its values, for the reasons given there.

    Attributes:
      zoom: by which the view is smaller than the still, so that the camera has room to move in.
      camera_speed, camera_zoom, camera_rotation: of the camera; the latter at most, as a factor less 1 and in radians.
      object_speed, object_growth, object_rotation: of the object relative to the background, likewise.
      follow_share: the share of clips in which the camera follows the object: the background moves, the object little.
      rest_share: the share of clips in which the object rests on the background. Motion alone is no perfect cue, in
        real video neither: 15 % keep the network from relying on it and leave most clips for learning it.
      shrunk_share: the share of stills that are seen from farther away, of those whose object lies whole within. The
        background goes on mirrored around them. An object in the middle that fills a third of the frame is what
        photographers make; a network that knows nothing else paints too much in video.
      shrunk_zoom, shrunk_cover: by which, and what share of the frame the object then is. DAVIS's cover 1 to 30 %;
        below 3 % little of a still of 256 pixels is left. Where no such zoom gives such a share, the still is left as
        it is.
      parallax_share: the share of stills whose background is near here and far there, so that no homography explains
        its motion; else all that a homography leaves is the object, as it never is in real video.
      parallax: how much farther than the plane the nearest of it moves when the camera does, as a factor less 1. At .7
        the nearest is six times as near as the farthest: a street more than a landscape.
      parallax_camera_speed: of the camera there. One that rests shows no parallax; this is a walk beside the object.
      distractor_share: the share of stills with another still's object between object and background, which the mask
        leaves out: not all that has an outline of its own, or moves by itself, is the object.
      distractor_cover: its area as a share of the object's, less than a half lest a viewer be in doubt.
      distractor_speed: its own speed as a share of the object's, so that where the object rests it does too.
      distractor_rest_share: the share of distractors that rest in any case, as most things in a street.
    """

    zoom: tuple[float, float] = (1.15, 1.4)
    camera_speed: tuple[float, float] = (0.0, 0.012)
    camera_zoom: float = 0.003
    camera_rotation: float = 0.004
    object_speed: tuple[float, float] = (0.014, 0.035)
    object_growth: float = 0.006
    object_rotation: float = 0.03
    follow_share: float = 0.5
    rest_share: float = 0.15
    shrunk_share: float = 0.0
    shrunk_zoom: tuple[float, float] = (0.45, 0.95)
    shrunk_cover: tuple[float, float] = (0.03, 0.3)
    parallax_share: float = 0.0
    parallax: tuple[float, float] = (0.3, 0.7)
    parallax_camera_speed: tuple[float, float] = (0.01, 0.03)
    distractor_share: float = 0.0
    distractor_cover: tuple[float, float] = (0.15, 0.45)
    distractor_speed: tuple[float, float] = (0.2, 0.6)
    distractor_rest_share: float = 1 / 3

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share") and not 0 <= value <= 1:
                raise ValueError(f"{field.name} must be between 0 and 1, not {value}")
