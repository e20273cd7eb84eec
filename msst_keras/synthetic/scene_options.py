"""What generated scenes are like: the ranges and shares that a scene is drawn from, each with its reason."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class SceneOptions:
    """What scenes are like. Lengths are in image heights, speeds in image heights per frame; ranges are drawn evenly.

    Attributes:
      num_objects: how many objects move and are labelled. Several occlude one another now and then.
      object_radius: the radius of an object; DAVIS's objects cover 1 to 30 % of the image.
      tiny_share: the share of objects that are tiny, because in real video those are the ones that are missed.
      tiny_radius: the radius of a tiny object; 4 pixels at 128x192.
      object_speed: an object's speed relative to the background. The slowest moves 1.8 pixels per frame at 128x192,
        which any flow method sees.
      object_rotation: how fast an object turns at most, in radians per frame.
      object_growth: how fast an object grows or shrinks at most, as a factor per frame less 1.
      camera_speed: the speed of the background. It is below that of objects, so that they can stay in view.
      camera_zoom, camera_rotation: the same limits for the camera: a hand-held camera, not an action camera.
      follow_share: the share of scenes in which the camera follows the first object, as in most of DAVIS. Then the
        object hardly moves in the image, and the background does.
      num_distractors: how many patches draw the eye but belong to the background. Motion alone tells them from objects.
      occluder_share: the share of scenes with a foreground that hides an object at times; it moves with the background.
      halt_frames: objects stop (relative to the background) for 1 to so many frames and stay labelled, which a network
        without memory cannot know. With 0 they never stop.
      halt_rate: the chance per frame that a moving object stops.
    """

    num_objects: tuple[int, int] = (1, 3)
    object_radius: tuple[float, float] = (0.10, 0.24)
    tiny_share: float = 0.15
    tiny_radius: tuple[float, float] = (0.03, 0.05)
    object_speed: tuple[float, float] = (0.014, 0.035)
    object_rotation: float = 0.03
    object_growth: float = 0.006
    camera_speed: tuple[float, float] = (0.0, 0.012)
    camera_zoom: float = 0.003
    camera_rotation: float = 0.004
    follow_share: float = 0.5
    num_distractors: tuple[int, int] = (0, 2)
    occluder_share: float = 0.4
    halt_frames: int = 3
    halt_rate: float = 0.04

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            low, high = value if isinstance(value, tuple) else (value, value)
            if not 0 <= low <= high or (field.name.endswith(("share", "rate")) and high > 1):
                limit = "between 0 and 1" if field.name.endswith(("share", "rate")) else "at least 0 and in order"
                raise ValueError(f"{field.name} must be {limit}, not {value}")
