"""How stills may move: the ranges and shares that a clip is drawn from, each with its reason."""

from __future__ import annotations

import dataclasses

from msst_keras.synthetic.scene_options import SceneOptions


@dataclasses.dataclass(frozen=True)
class StillMotionOptions:
    """How a still moves. Speeds are in short sides of the still per frame; ranges are drawn evenly.

    Options that `SceneOptions` has too have its defaults, for the reasons given there.

    Attributes:
      zoom: the factor by which the view is smaller than the still, so that the camera has room to move.
      camera_speed, camera_zoom, camera_rotation: the camera's speed, and how much it zooms (as a factor less 1) and
        turns (in radians) per frame at most.
      object_speed, object_growth, object_rotation: the same for the object, relative to the background.
      follow_share: the share of clips in which the camera follows the object, so that the background moves and the
        object moves little.
      rest_share: the share of clips in which the object rests on the background. Motion alone is no perfect cue in real
        video either. 15 % keep the network from relying on it and leave most clips for learning it.
      shrunk_share: the share of stills that are seen from farther away, among those whose object lies whole within.
        Around them the background continues mirrored. Photographers put an object in the middle and let it fill a third
        of the frame; a network that knows nothing else paints too much in video.
      shrunk_zoom: the factor by which such a still is made smaller.
      shrunk_cover: the share of the frame that the object then covers. DAVIS's objects cover 1 to 30 %; below 3 %
        little of a still of 256 pixels is left. If no zoom of that range gives such a share, the still is not shrunk.
      parallax_share: the share of stills whose background is near in some places and far in others, so that no
        homography explains its motion. Otherwise a homography would leave nothing but the object, as in no real video.
      parallax: how much farther than the plane the nearest point moves when the camera moves, as a factor less 1. At .7
        the nearest point is six times as near as the farthest: a street more than a landscape.
      parallax_camera_speed: the camera's speed in such clips. A camera at rest shows no parallax; this one walks beside
        the object.
      distractor_share: the share of stills with another still's object between the object and the background, which the
        mask leaves out. It teaches that not everything with an outline or a motion of its own is the object.
      distractor_cover: the distractor's area as a share of the object's; less than a half, lest a viewer be in doubt.
      distractor_speed: the distractor's speed as a share of the object's, so that it rests where the object rests.
      distractor_rest_share: the share of distractors that rest in any case, as most things in a street do.
      crowd_share: the share of stills with a crowd at rest behind the object, which the mask leaves out (`crowds`). It
        teaches that of things that look alike the one that moves is the object.
      crowd_size: how many stand in a crowd, if there is room for them.
      crowd_cover: the area of each as a share of the object's, from far behind it to nearer than it.
      crowd_least_speed: an object that moves less, relative to the background, has no crowd, because flow could hardly
        tell them apart. It is half of the least `object_speed`, because what reaches the still's edge is slowed down.
    """

    zoom: tuple[float, float] = (1.15, 1.4)
    camera_speed: tuple[float, float] = SceneOptions.camera_speed
    camera_zoom: float = SceneOptions.camera_zoom
    camera_rotation: float = SceneOptions.camera_rotation
    object_speed: tuple[float, float] = SceneOptions.object_speed
    object_growth: float = SceneOptions.object_growth
    object_rotation: float = SceneOptions.object_rotation
    follow_share: float = SceneOptions.follow_share
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
    crowd_share: float = 0.0
    crowd_size: tuple[int, int] = (3, 7)
    crowd_cover: tuple[float, float] = (0.3, 1.5)
    crowd_least_speed: float = SceneOptions.object_speed[0] / 2

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share") and not 0 <= value <= 1:
                raise ValueError(f"{field.name} must be between 0 and 1, not {value}")
