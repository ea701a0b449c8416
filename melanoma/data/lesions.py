"""Drawing of synthetic, dermoscopy-like images of skin lesions."""

import colorsys
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

__all__ = ["SKIN_TONES", "LesionStyle", "class_names", "draw_lesion", "lesion_style"]

Array = NDArray[np.floating]
Colour = tuple[int, int, int]

TAN, BROWN, DARK, BLACK = (176, 122, 84), (138, 86, 56), (92, 56, 40), (44, 32, 34)
PINK, RED, PURPLE = (214, 142, 130), (178, 82, 74), (112, 38, 66)
BLUE_GREY, WHITE, YELLOW = (96, 98, 114), (224, 204, 192), (214, 178, 120)
VARIEGATION = (DARK, BLACK, BLUE_GREY, RED, WHITE)
VARIEGATION_SHARES = (0.3, 0.25, 0.2, 0.13, 0.12)
AMBIGUOUS = 0.06  # share of lesions whose severity does not depend on the class
SKIN_TONES: dict[str, Colour] = {  # Fitzpatrick types in dermoscopic images
    "I": (238, 205, 190), "II": (229, 188, 166), "III": (211, 165, 138),
    "IV": (184, 136, 106), "V": (146, 103, 78), "VI": (108, 76, 60),
}  # fmt: skip


@dataclass(frozen=True)
class LesionStyle:
    """Average appearance of the lesions of one class. Individual lesions vary widely around it.

    Attributes:
        severity: Mean of the ABCD severity, from 0 (round, even, one colour, small) to 1.
        rim: RGB colour of the rim, 0 to 255.
        core: RGB colour of the centre, 0 to 255.
        structures: Kinds of structure, one of which is drawn in each lesion: "network", "spots", "lines"
            or "plain".
        frequency: Structures per half image width.
        ink: RGB colour of the structures, 0 to 255.
        edge: Width of the rim's fade into the skin, in half image widths.
    """

    severity: float
    rim: Colour = TAN
    core: Colour = BROWN
    structures: tuple[str, ...] = ("network", "spots", "plain")
    frequency: float = 14.0
    ink: Colour = DARK
    edge: float = 0.07


PAIR = {"benign": LesionStyle(0.2), "malignant": LesionStyle(0.8, core=(96, 58, 42))}
STYLES = {
    "nevus": LesionStyle(0.25),
    "melanoma": LesionStyle(0.75, core=DARK, ink=BLACK),
    "basal cell carcinoma": LesionStyle(0.4, PINK, (226, 168, 152), ("lines",), 3.2, RED, 0.05),
    "actinic keratosis": LesionStyle(0.3, PINK, (206, 124, 108), ("spots", "network"), 6.0, YELLOW, 0.14),
    "benign keratosis": LesionStyle(0.4, (168, 128, 96), (146, 104, 74), ("lines",), 4.0, DARK, 0.03),
    "dermatofibroma": LesionStyle(0.15, (170, 112, 86), WHITE, ("network", "plain"), 14.0, BROWN, 0.12),
    "vascular lesion": LesionStyle(0.25, RED, PURPLE, ("spots",), 5.0, (90, 20, 52), 0.04),
    "squamous cell carcinoma": LesionStyle(0.6, RED, (222, 176, 140), ("spots", "lines"), 5.0, WHITE, 0.08),
    "seborrheic keratosis": LesionStyle(0.45, (134, 98, 72), (96, 70, 54), ("spots",), 9.0, YELLOW, 0.02),
}


def class_names(count: int) -> list[str]:
    """Return ``count`` class names: clinical names for the first nine, then "class 10" and so on.

    Raises:
        ValueError: If ``count`` is below 2.
    """
    if count < 2:
        raise ValueError(f"A classifier needs at least 2 classes. Received: count={count}")
    if count == 2:
        return list(PAIR)
    return [*STYLES, *(f"class {number}" for number in range(10, count + 1))][:count]


def lesion_style(name: str, index: int) -> LesionStyle:
    """Return the style of a class, by its clinical name or, for other names, by its 0-based index."""
    known = {**PAIR, **STYLES}
    if name in known:
        return known[name]
    turn, row = divmod(index, len(STYLES))
    style = list(STYLES.values())[row]
    return replace(style, rim=_turn_hue(style.rim, turn), core=_turn_hue(style.core, turn))


def _turn_hue(colour: Colour, turn: int) -> Colour:
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in colour))
    red, green, blue = colorsys.hls_to_rgb((hue + 0.19 * turn) % 1, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_lesion(
    style: LesionStyle, tone: str, size: int, lesion: np.random.Generator, view: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw one dermoscopy-like image.

    Args:
        style: Style of the lesion's class.
        tone: Fitzpatrick type of the skin, "I" to "VI".
        size: Width and height in pixels, 32 or more.
        lesion: Random generator of the lesion. The same state gives the same lesion.
        view: Random generator of the view: rotation, crop, light, hairs, bubbles, blur and noise.

    Returns:
        RGB pixels of shape (size, size, 3), 0 to 255.
    """
    axis = np.linspace(-1, 1, size)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    angle, zoom = view.normal(0, 0.25), view.uniform(0.88, 1.14)
    dx, dy = x - view.normal(0, 0.07), y - view.normal(0, 0.07)
    u = (np.cos(angle) * dx - np.sin(angle) * dy) / zoom
    v = (np.sin(angle) * dx + np.cos(angle) * dy) / zoom
    skin = np.array(SKIN_TONES[tone], float)
    image = _draw_skin(skin, u, v, view)
    image = _draw_pigment(image, style, skin, u, v, lesion)
    image = _add_artefacts(image, x, y, view)
    return _photograph(image, x, y, view)


def _noise(u: Array, v: Array, frequency: float, rng: np.random.Generator) -> Array:
    """Return smooth noise of about unit standard deviation, tied to the coordinates so that all views share it."""
    grid = rng.normal(0, 1.5, (24, 24))
    # Start in the middle of the grid, because wrapped points are slower.
    points = [v * frequency + 12, u * frequency + 12]
    return ndimage.map_coordinates(grid, points, order=2, mode="grid-wrap", prefilter=False)


def _ramp(values: Array, width: float | Array) -> Array:
    """Return a smooth step from 0 to 1 around zero, about ``width`` wide."""
    return 1 / (1 + np.exp(np.clip(values * (-4 / width), -30, 30)))


def _blend(image: Array, colour: ArrayLike, alpha: Array) -> Array:
    return image + alpha[..., None] * (np.asarray(colour, float) - image)


def _draw_skin(skin: Array, u: Array, v: Array, rng: np.random.Generator) -> Array:
    mottling = _noise(u, v, 3, rng)[..., None] * np.array([2.0, 4.0, 4.0])
    furrows = np.abs(_noise(u, v, 11, rng))[..., None] * 4 - 3
    flush = rng.normal(0, 1) * np.array([3.0, -3.0, -2.0])
    return skin + mottling + furrows + flush


def _draw_pigment(image: Array, style: LesionStyle, skin: Array, u: Array, v: Array, rng: np.random.Generator) -> Array:
    mean = 0.5 if rng.random() < AMBIGUOUS else style.severity
    severity = rng.normal(mean, 0.1)
    asymmetry, border, colours, diameter = np.clip(severity + rng.normal(0, 0.11, 4), 0, 1)
    depth = _depth(u, v, asymmetry, border, diameter, rng)
    fade = style.edge * rng.uniform(0.7, 1.8) * np.exp(0.5 * _noise(u, v, 1.5, rng))
    alpha = _ramp(depth, fade) * rng.uniform(0.8, 0.97)
    # Darken the pigment with the skin, or lesions on dark skin would be too bright.
    shade = 0.35 + 0.65 * skin.mean() / 211
    jitter = rng.normal(0, 8) + rng.normal(0, 3, 3)
    rim, core = ((np.array(colour) + jitter) * shade for colour in (style.rim, style.core))
    offset = 0.4 * asymmetry * rng.uniform(-1, 1, 2)
    mottling = _noise(u, v, 5, rng)
    centre = _ramp(0.3 - np.hypot(u - offset[0], v - offset[1]) + 0.1 * mottling, 0.5)
    lesion = _blend(np.broadcast_to(rim, image.shape), core, centre) * (1 + 0.05 * mottling[..., None])
    for index in rng.choice(len(VARIEGATION), round(4 * colours), replace=False, p=VARIEGATION_SHARES):
        patch = _ramp(_noise(u, v, 3, rng) + 0.3 * mottling - 0.6, 0.9) * rng.uniform(0.35, 0.85)
        lesion = _blend(lesion, np.array(VARIEGATION[index]) * shade, patch)
    structure = _structure(str(rng.choice(style.structures)), style.frequency, u, v, border, rng)
    lesion = _blend(lesion, np.array(style.ink) * shade, structure * rng.uniform(0.3, 0.7))
    halo = _ramp(depth + 0.1, 0.25) * 0.16
    return _blend(_blend(image, np.array(RED) * shade, halo), lesion, alpha)


def _depth(u: Array, v: Array, asymmetry: float, border: float, diameter: float, rng: np.random.Generator) -> Array:
    """Return the distance inside the border of the lesion in half image widths; negative outside."""
    radius = (0.36 + 0.3 * diameter) * np.exp(rng.normal(0, 0.1))
    tilt, squeeze = rng.uniform(0, np.pi), rng.uniform(0.78, 1)
    long, short = np.cos(tilt) * u + np.sin(tilt) * v, np.cos(tilt) * v - np.sin(tilt) * u
    lopsided = (0.03 + 0.3 * asymmetry) * _noise(u, v, 1.3, rng)
    jagged = (0.02 + 0.13 * border) * _noise(u, v, 4, rng) + (0.01 + 0.08 * border) * _noise(u, v, 9, rng)
    # The lower bound ensures that the centre is always inside the lesion.
    return radius * np.maximum(1 + lopsided + jagged, 0.4) - np.hypot(long * squeeze, short / squeeze)


def _structure(kind: str, frequency: float, u: Array, v: Array, disorder: float, rng: np.random.Generator) -> Array:
    """Return the opacity, 0 to 1, of the pigment network, the spots (globules, cysts) or the lines (vessels)."""
    if kind == "network":
        bend = (0.02 + 0.08 * disorder) * _noise(u, v, 4, rng)
        angles = rng.uniform(0, np.pi) + np.array([0, 1, 2]) * np.pi / 3
        waves = [np.cos(np.pi * frequency * (np.cos(a) * (u + bend) + np.sin(a) * (v - bend))) for a in angles]
        return _ramp(-np.sum(waves, 0), 3.0) * _ramp(_noise(u, v, 2, rng) + 0.2, 1.5)
    if kind == "spots":
        return _ramp(_noise(u, v, frequency, rng) - 0.9, 0.6)
    if kind == "lines":
        return np.exp(-((_noise(u, v, frequency, rng) / 0.14) ** 2)) * _ramp(_noise(u, v, 2, rng) + 0.2, 1.0)
    return np.zeros_like(u)


def _add_artefacts(image: Array, x: Array, y: Array, rng: np.random.Generator) -> Array:
    if rng.random() < 0.4:
        image = _add_hairs(image, x, y, rng)
    if rng.random() < 0.15:
        image = _add_ruler(image, x, y, rng)
    if rng.random() < 0.2:
        for _ in range(rng.integers(1, 5)):
            image = _add_bubble(image, x, y, rng)
    return image


def _add_hairs(image: Array, x: Array, y: Array, rng: np.random.Generator) -> Array:
    count = rng.integers(1, 11)
    direction = rng.uniform(0, np.pi) + rng.normal(0, 0.45, (count, 1, 1))
    along = np.cos(direction) * x + np.sin(direction) * y - rng.uniform(-0.6, 0.6, (count, 1, 1))
    across = np.cos(direction) * y - np.sin(direction) * x - rng.uniform(-1, 1, (count, 1, 1))
    bow = rng.normal(0, 0.25, (count, 1, 1))
    distance = np.abs(across - bow * along**2) / np.sqrt(1 + (2 * bow * along) ** 2)
    width = rng.uniform(0.008, 0.02, (count, 1, 1))
    reach = rng.uniform(0.4, 1.4, (count, 1, 1))
    alpha = np.clip(1.3 - distance / width, 0, 1) * np.clip((reach - np.abs(along)) * 6, 0, 1)
    colour = np.array([52, 36, 30]) + rng.uniform(0, 60) * np.array([1, 0.8, 0.5])
    return _blend(image, colour, alpha.max(0) * 0.85)


def _add_ruler(image: Array, x: Array, y: Array, rng: np.random.Generator) -> Array:
    turn = rng.integers(4)
    along, inward = [(x, 1 - y), (y, 1 - x), (x, 1 + y), (y, 1 + x)][turn]
    inward = inward - rng.uniform(0.02, 0.12)
    pitch = rng.uniform(0.09, 0.14)
    tick = np.abs((along / pitch + 0.5) % 1 - 0.5) * pitch < 0.013
    longer = np.round(along / pitch) % 5 == 0
    return _blend(image, (40, 40, 46), tick * (inward > 0) * (inward < np.where(longer, 0.17, 0.09)) * 0.8)


def _add_bubble(image: Array, x: Array, y: Array, rng: np.random.Generator) -> Array:
    (cx, cy), radius = rng.uniform(-0.95, 0.95, 2), rng.uniform(0.05, 0.17)
    distance = np.hypot(x - cx, y - cy) / radius
    ring = np.exp(-(((distance - 1) / 0.16) ** 2)) * (0.45 + 0.35 * np.sign(x - cx + y - cy))
    glint = np.exp(-((np.hypot(x - cx + radius / 3, y - cy + radius / 3) / radius / 0.22) ** 2))
    return _blend(image, (250, 248, 244), np.clip(ring * 0.5 + glint * 0.7, 0, 1))


def _photograph(image: Array, x: Array, y: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Simulate the camera: light, colour cast, vignetting, blur and sensor noise."""
    slope = rng.normal(0, 0.06, 2)
    light = rng.normal(1, 0.07) + slope[0] * x + slope[1] * y
    distance = np.hypot(x, y)
    if rng.random() < 0.2:
        light = light * (1 - 0.94 * _ramp(distance - rng.uniform(0.98, 1.25), 0.1))
    else:
        light = light * (1 - rng.uniform(0, 0.14) * distance**2)
    image = image * light[..., None] * rng.normal(1, 0.025, 3)
    blur = rng.uniform(0.2, 0.9) * len(x) / 96
    image = ndimage.gaussian_filter(image, (blur, blur, 0), truncate=3)
    image = image + rng.normal(0, rng.uniform(1, 4), image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
