from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from msst_keras.synthetic import distractors


def square(side, size=(80, 100), corner=(20, 30)):
    mask = np.zeros(size, bool)
    mask[corner[0] : corner[0] + side, corner[1] : corner[1] + side] = True
    return mask


def test_candidates_are_others_and_depend_on_seed_and_name():
    names = [f"still{number}" for number in range(50)]
    first = list(distractors.choose_candidates(names, 0))
    assert first == list(distractors.choose_candidates(names, 0)) != list(distractors.choose_candidates(names, 1))
    assert all(own not in indices and 2 <= len(indices) <= 4 for own, indices in enumerate(first))
    assert all(len(set(indices)) == len(indices) for indices in first)
    seen = {index for indices in first for index in indices}
    assert 0 <= min(seen) and max(seen) < 50 and len(seen) > 40
    assert list(distractors.choose_candidates(["a", "b"], 0)) == [(1,), (0,)]
    assert list(distractors.choose_candidates(["a"], 0)) == [()]


@pytest.fixture
def write(tmp_path):
    def write(name, mask):
        image = np.full((*mask.shape, 3), len(name), np.uint8)
        paths = tmp_path / f"{name}.png", tmp_path / f"{name}_mask.png"
        Image.fromarray(image).save(paths[0])
        Image.fromarray(mask.astype(np.uint8) * 255).save(paths[1])
        return paths

    return write


def test_the_first_whole_object_of_a_fitting_size_is_taken(write):
    masks = {"small": square(8), "large": square(60, corner=(10, 20)), "cut": square(20, corner=(0, 9))}
    unfit = [write(name, mask) for name, mask in {**masks, "empty": square(0)}.items()]
    fit = [write("a", square(20)), write("bb", square(30))]
    image, mask = distractors.read_first([*unfit, *fit], "half")
    assert image[0, 0, 0] == 1 and mask.sum() == 400
    assert distractors.read_first(unfit, "half") is None
    assert distractors.read_first([], "half") is None


def test_an_object_is_cut_out_at_the_area_asked_for_but_not_enlarged_much():
    mask = square(40)
    image = np.where(mask[..., None], 200, 50).astype(np.uint8).repeat(3, axis=2)
    for area, expected in ((400, 400), (900, 900), (10**6, (1.25 * 40) ** 2)):
        patch, cover = distractors.cut_out(image, mask, area)
        assert patch.shape == (*cover.shape, 3) and patch.dtype == np.uint8 and cover.dtype == np.float32
        assert (cover > 0.5).sum() == pytest.approx(expected, rel=0.12)
        assert patch[cover > 0.99].min() >= 195 and patch[cover < 0.01].max() <= 55
        assert not cover[0].any() and not cover[-1].any() and not cover[:, 0].any() and not cover[:, -1].any()
    assert distractors.cut_out(image, mask, 40) is None


def test_a_place_is_in_view_and_beside_the_object():
    cover = np.zeros((18, 18), np.float32)
    cover[4:14, 4:14] = 1
    mask = np.zeros((80, 100), bool)
    mask[:, :60] = True
    view = np.array([[-20.0, 10.0], [110.0, 70.0]])
    places = [distractors.find_place(np.random.default_rng(seed), cover, mask, view) for seed in range(60)]
    for x, y in places:
        rows = [row for row in range(int(y) + 4, int(y) + 14) if 0 <= row < 80]
        columns = [column for column in range(int(x) + 4, int(x) + 14) if 0 <= column < 100]
        hidden = sum(mask[row, column] for row in rows for column in columns)
        assert hidden < 50  # of 100 pixels
        assert -20 < x + 8.5 < 110 and 10 < y + 8.5 < 70
    assert len({tuple(place) for place in places}) > 40
    everywhere = np.array([[20.0, 20.0], [80.0, 60.0]])
    assert distractors.find_place(np.random.default_rng(0), cover, np.ones((80, 100), bool), everywhere) is None
