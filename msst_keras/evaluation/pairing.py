"""Which map belongs to which mask: they are paired by sequence and frame name, and none may be left over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

_NUM_LISTED = 5  # how many of the maps or masks that are wrong are named


def pair_maps(
    mask_names: Mapping[str, Sequence[str]],
    map_names: Mapping[str, Sequence[str]],
    frame_names: Mapping[str, Sequence[str]] | None = None,
    scored_names: Mapping[str, Sequence[str]] | None = None,
) -> list[tuple[str, str]]:
    """Pairs maps with masks by sequence and frame name, and accepts nothing that is left over.

    Args:
      mask_names: Sequence -> names of its frames that have a mask.
      map_names: Sequence -> names of its maps.
      frame_names: Sequence -> names of all its frames, with and without mask, for datasets that annotate only some
        (FBMS), so that a map of a frame without mask is no error. By default the frames are those with a mask.
      scored_names: Sequence -> names of the frames that are scored; a map of the others is not demanded. By default
        those with a mask.

    Returns:
      (sequence, frame) of each pair, in the order of `mask_names`.

    Raises:
      ValueError: masks have no map, maps belong to no sequence or frame, or a frame has two maps; the message lists
        them.
    """
    frame_names = mask_names if frame_names is None else frame_names
    scored_names = mask_names if scored_names is None else scored_names
    pairs = [(sequence, frame) for sequence, frames in scored_names.items() for frame in frames]
    frames = {(sequence, frame) for sequence, names in frame_names.items() for frame in names}
    maps = Counter((sequence, frame) for sequence, names in map_names.items() for frame in names)
    amiss: list[tuple[str, list[tuple[str, ...]]]] = [
        ("{} of " + str(len(pairs)) + " masks have no map", [pair for pair in pairs if pair not in maps]),
        ("{} sequences of maps are unknown", [(name,) for name in map_names if name not in frame_names]),
        ("{} maps belong to no frame", [pair for pair in maps if pair[0] in frame_names and pair not in frames]),
        ("{} frames have two maps", [pair for pair, count in maps.items() if count > 1]),
    ]
    if problems := [f"{text.format(len(found))} ({_list(found)})" for text, found in amiss if found]:
        advice = "maps must be named after the frames, as SEQUENCE/FRAME"
        if not any(found for _, found in amiss[1:]) and any(map_names.values()):
            advice = "make them, or leave their sequences out (--sequences)"
        raise ValueError(f"{'; '.join(problems)}: {advice}")
    return pairs


def _list(paths: Iterable[tuple[str, ...]]) -> str:
    names = ["/".join(path) for path in paths]
    return ", ".join(names[:_NUM_LISTED]) + (", ..." if len(names) > _NUM_LISTED else "")
