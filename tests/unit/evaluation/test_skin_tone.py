"""The typology angle is the formula's, and drawn skin is put in the order of its tone."""

import cv2
import numpy as np
import pytest

from melanoma.data.lesions import SKIN_TONES, draw_lesion, lesion_style
from melanoma.evaluation.skin_tone import estimated_tone, typology_angle


def patch(colour: tuple[int, int, int], side: int = 96) -> np.ndarray:
    return np.tile(np.array(colour, np.uint8), (side, side, 1))


@pytest.mark.parametrize(
    ("colour", "angle"),
    # L*, b* by the definitions of sRGB and CIE Lab (D65): (67.43, 22.18), (84.67, 15.81), (28.94, 14.71)
    [((200, 155, 125), 38.16), ((236, 206, 182), 65.48), ((90, 62, 46), -55.06)],
)
def test_the_angle_of_a_patch_is_that_of_its_colour(colour, angle):
    assert typology_angle(patch(colour)) == pytest.approx(angle, abs=0.5)


def test_the_lesion_in_the_middle_and_black_corners_do_not_count():
    image = patch((200, 155, 125))
    cv2.circle(image, (48, 48), 24, (60, 30, 20), -1)
    image[:16, :16] = image[-16:, -16:] = 0
    assert typology_angle(image) == pytest.approx(typology_angle(patch((200, 155, 125))), abs=0.5)


@pytest.mark.parametrize("image", [patch((0, 0, 0)), patch((150, 150, 220)), patch((255, 255, 255))])
def test_what_is_no_skin_has_no_tone(image):
    assert np.isnan(typology_angle(image))
    assert estimated_tone(image[None]).isna().all()


def test_drawn_skin_is_put_in_the_order_of_its_tone():
    angles = []
    for tone in SKIN_TONES:
        images = [
            draw_lesion(lesion_style("benign", 0), tone, 96, np.random.default_rng(i), np.random.default_rng(i))
            for i in range(8)
        ]
        angles.append(np.median([typology_angle(image) for image in images]))
        assert estimated_tone(np.stack(images)).notna().all()
    assert (np.diff(angles) < 0).all()
