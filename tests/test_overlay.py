"""Maps laid over a picture: which pixels a patch covers, and their colours."""

import numpy as np
import pytest
from PIL import Image

from hones import HonesError
from hones.method.analysis.picture_map import PictureMap
from hones.palette import COOL, WARM, perceived
from hones.views.overlay import SIDE, overlay, overlay_map

WHITE = Image.new("RGB", (60, 40), (255, 255, 255))


def colour(code: str) -> np.ndarray:
    return np.array([*bytes.fromhex(code.removeprefix("#"))])


def test_the_scale_goes_from_cool_over_white_to_warm_in_equal_steps() -> None:
    ends = perceived(np.array([-1.0, 0.0, 1.0, 2.0]))
    wanted = np.array([colour(COOL), [255] * 3, colour(WARM), colour(WARM)])
    np.testing.assert_allclose(ends, wanted, atol=1)
    steps = perceived(np.linspace(0, 1, 5)).astype(int)
    assert (np.diff(steps[:, 2]) < 0).all(), "blue falls all the way to orange"
    grey = steps @ [0.2126, 0.7152, 0.0722]
    drops = -np.diff(grey)
    assert drops.min() > 0.6 * drops.max()


def test_every_patch_covers_its_own_pixels() -> None:
    values = np.array([[1.0, -1.0, 0.0], [0.5, np.nan, -0.5]])
    shown = np.asarray(overlay(WHITE, values)).astype(int)
    height, width, _ = shown.shape
    assert (width, height) == (SIDE, SIDE * 2 // 3)
    expected = perceived(np.nan_to_num(values)).astype(int)
    for row in range(2):
        for column in range(3):
            patch = shown[row * height // 2 : (row + 1) * height // 2, column * width // 3 : (column + 1) * width // 3]
            inner = patch[4:-4, 4:-4]  # within the outline of the strongest
            assert np.abs(inner - expected[row, column]).max() <= 1


def test_the_strongest_is_outlined_and_nothing_else() -> None:
    shown = np.asarray(overlay(WHITE, np.array([[0.1, -2.0], [0.1, 0.1]]))).astype(int)
    height, width, _ = shown.shape
    dark = (shown.sum(-1) < 150).nonzero()
    assert dark[0].min() == 0 and dark[0].max() == height // 2 - 1
    assert dark[1].min() == width // 2 and dark[1].max() == width - 1
    assert not (np.asarray(overlay(WHITE, np.zeros((2, 2)))) < 255).any()


def test_a_map_of_a_part_leaves_the_rest_pale() -> None:
    black = Image.new("RGB", (80, 40))
    of_middle = PictureMap("drop", "t", np.ones((1, 1)), "nats", (0.25, 0.0, 0.75, 1.0))
    shown = np.asarray(overlay_map(black, of_middle)).astype(int)
    left, middle = shown[120, 20], shown[120, 240]
    assert left.min() > 180 and len({*left.tolist()}) == 1, "uncoloured"
    assert middle[0] > middle[2] + 50, "orange"
    beyond = overlay(black, np.array([[1.0, 1.0]]), (-0.5, 0.0, 1.5, 1.0))
    assert np.asarray(beyond).shape == (240, 480, 3)


def test_two_maps_can_share_a_scale() -> None:
    half = np.asarray(overlay(WHITE, np.array([[1.0, 0.0]]), largest=2.0)).astype(int)
    np.testing.assert_allclose(half[100, 100], perceived(np.array(0.5)), atol=1)


@pytest.mark.parametrize(
    ("values", "largest"),
    [(np.ones(3), None), (np.array([[np.inf]]), None), (np.zeros((0, 2)), None), (np.ones((1, 1)), 0)],
)
def test_what_is_no_map_is_one_line(values: np.ndarray, largest: float | None) -> None:
    with pytest.raises(HonesError, match=r"a map of shape|a scale up to 0"):
        overlay(WHITE, values, largest=largest)
