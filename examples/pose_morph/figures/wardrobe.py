"""What a person looks like: skin, hair and clothes, as functions of the rest-pose point, so they follow the body."""

from dataclasses import dataclass

import numpy as np

from examples.pose_morph.figures.body import RestFields

Colour = tuple[int, int, int]

CLOTHES: dict[str, Colour] = {
    "white": (240, 240, 236),
    "light grey": (176, 180, 184),
    "charcoal": (62, 64, 70),
    "black": (28, 28, 32),
    "red": (206, 38, 42),
    "wine": (122, 26, 52),
    "orange": (240, 128, 32),
    "amber": (246, 190, 46),
    "yellow": (250, 230, 84),
    "lime": (160, 206, 58),
    "green": (44, 146, 72),
    "bottle": (22, 84, 62),
    "teal": (22, 140, 142),
    "turquoise": (92, 206, 200),
    "sky": (122, 186, 236),
    "blue": (40, 96, 204),
    "navy": (26, 40, 98),
    "violet": (112, 64, 176),
    "lilac": (190, 160, 226),
    "magenta": (208, 46, 146),
    "pink": (246, 164, 188),
    "brown": (112, 72, 44),
    "sand": (214, 190, 146),
    "olive": (112, 112, 50),
}
SKINS: tuple[Colour, ...] = (
    (250, 222, 204), (240, 200, 174), (226, 178, 146), (206, 154, 118), (178, 124, 88), (144, 96, 66), (112, 72, 50),
    (82, 54, 42),
)  # fmt: skip
HAIRS: tuple[Colour, ...] = (
    (26, 22, 22), (52, 36, 28), (88, 58, 38), (132, 86, 48), (178, 130, 72), (222, 190, 122), (166, 70, 36),
    (150, 150, 152), (214, 212, 208),
)  # fmt: skip
BACKGROUNDS: tuple[Colour, ...] = (
    (255, 255, 255), (240, 240, 240), (226, 228, 230), (206, 208, 212), (234, 228, 216), (214, 224, 230),
    (222, 230, 218), (232, 220, 222),
)  # fmt: skip
PATTERNS = ("horizontal stripes", "vertical stripes", "checks", "dots", "halves", "two bands", "sleeves")
PRINTS = ("disc", "ring", "square", "cross", "star", "triangle", "T", "L", "H", "X", "U")

# Regions of the body, as `Look.region` numbers them.
SKIN, HAIR, UPPER, LOWER, SHOES, EYES, MOUTH = range(7)
CHEST_Z, WAIST_Z, HIP_Z = 0.34, 0.06, -0.02


@dataclass(frozen=True)
class Pattern:
    """A garment's colours.

    Attributes:
        kind: "plain" or one of `PATTERNS`.
        first: main colour.
        second: other colour.
        period: length of one repetition in metres.
        phase: shift in periods.
    """

    kind: str
    first: Colour
    second: Colour
    period: float = 0.2
    phase: float = 0.0

    def paint(self, across: np.ndarray, height: np.ndarray, sleeve: np.ndarray) -> np.ndarray:
        """Return `(n, 3)` colours at garment coordinates in metres; `sleeve` marks points of the sleeves."""
        u, v = across / self.period + self.phase, height / self.period + self.phase
        match self.kind:
            case "plain":
                other = np.zeros(len(u), dtype=bool)
            case "horizontal stripes":
                other = v % 1 < 0.5
            case "vertical stripes":
                other = u % 1 < 0.5
            case "checks":
                other = (u % 1 < 0.5) ^ (v % 1 < 0.5)
            case "dots":
                rows = np.floor(v)
                other = ((u + 0.5 * rows) % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.31**2
            case "halves":
                other = across > 0
            case "two bands":
                other = height < CHEST_Z - 0.1 + 0.1 * self.phase
            case "sleeves":
                other = sleeve
            case _:
                raise ValueError(f"kind: expected 'plain' or one of {PATTERNS}, got {self.kind!r}")
        return np.where(other[:, None], np.array(self.second, float), np.array(self.first, float))


def print_mask(kind: str, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return which points of the square [-1, 1]² belong to a printed figure."""
    inside = (np.abs(x) < 1) & (np.abs(z) < 1)
    radius = np.hypot(x, z)
    bar = 0.36
    match kind:
        case "disc":
            return radius < 1
        case "ring":
            return (radius < 1) & (radius > 0.5)
        case "square":
            return (np.abs(x) < 0.85) & (np.abs(z) < 0.85)
        case "cross":
            return inside & ((np.abs(x) < bar) | (np.abs(z) < bar))
        case "star":
            spoke = np.abs((np.arctan2(x, z) * 5 / (2 * np.pi) + 0.5) % 1 - 0.5) * 2
            return radius < 1.1 - 0.62 * spoke
        case "triangle":
            return (z > -0.85) & (np.abs(x) < (0.95 - z) * 0.58)
        case "T":
            return inside & ((np.abs(x) < bar) | (z > 1 - 2 * bar))
        case "L":
            return inside & ((x < -1 + 2 * bar) | (z < -1 + 2 * bar))
        case "H":
            return inside & ((np.abs(x) > 1 - 1.7 * bar) | (np.abs(z) < 0.3))
        case "X":
            return inside & (np.abs(np.abs(x) - np.abs(z)) < 0.42)
        case "U":
            return inside & ((np.abs(x) > 1 - 1.7 * bar) | (z < -1 + 2 * bar))
        case _:
            raise ValueError(f"kind: expected one of {PRINTS}, got {kind!r}")


@dataclass(frozen=True)
class Print:
    """A figure on the chest or the back: its shape, colour, half width in metres and height of its centre."""

    kind: str
    colour: Colour
    size: float
    centre: float


@dataclass(frozen=True)
class Look:
    """Everything visible about one person except the pose.

    Attributes:
        phenotype: Anny's body parameters.
        skin: skin colour.
        hair: hair colour.
        hair_length: lowest point of the hair at the back of the head, in metres below the hair line.
        upper: pattern of the shirt.
        lower: pattern of the trousers.
        shoes: colour of the shoes.
        sleeve: where the sleeve ends along the arm: 0 shoulder, 1 elbow, 2 wrist.
        neckline: depth of the front neckline in metres.
        waist: height of the shirt's lower edge.
        hem: height of the trousers' lower edge.
        loose: thickness in metres of shirt, trousers and hair.
        front: figure on the chest.
        back: figure on the back.
        background: colours at the top and at the bottom of the picture.
    """

    phenotype: dict[str, float]
    skin: Colour
    hair: Colour
    hair_length: float
    upper: Pattern
    lower: Pattern
    shoes: Colour
    sleeve: float
    neckline: float
    waist: float
    hem: float
    loose: tuple[float, float, float]
    front: Print | None
    back: Print | None
    background: tuple[Colour, Colour]

    def region(self, fields: RestFields) -> np.ndarray:
        """Return the `(n,)` number of the region that each rest-pose point belongs to."""
        x, y, z = fields.xyz.T
        arm, head = fields.arm > 0.5, fields.head > 0.5
        region = np.full(len(x), SKIN)
        region[~arm & (z < self.waist) & (z > self.hem)] = LOWER
        region[~arm & (z < -0.755)] = SHOES
        # The neck's opening is round at the sides and the back, and `neckline` deeper in front.
        front = np.clip((-0.03 - y) / 0.04, 0, 1)
        opening = 0.60 - 0.03 * front - self.neckline * front * np.clip(1 - np.abs(x) / 0.09, 0, 1)
        region[~arm & ~head & (z >= self.waist) & ((z < opening) | (np.abs(x) > 0.09))] = UPPER
        region[arm & (fields.along < self.sleeve)] = UPPER
        # The hair line runs from the forehead over the ears to the nape.
        line = np.interp(y, [-0.15, -0.11, -0.06, -0.03, 0.0], [0.805, 0.775, 0.725, 0.68, 0.64])
        behind = y > -0.035
        region[head & (z > line)] = HAIR
        region[~arm & behind & (z > 0.64 - self.hair_length) & (z < 0.7) & (np.abs(x) < 0.1)] = HAIR
        eye = ((np.abs(x) - 0.031) / 0.015) ** 2 + ((z - 0.728) / 0.009) ** 2 < 1
        brow = (np.abs(np.abs(x) - 0.033) < 0.017) & (np.abs(z - 0.752) < 0.004)
        region[head & (y < -0.11) & eye] = EYES
        region[head & (y < -0.11) & brow] = HAIR
        region[head & (y < -0.11) & ((x / 0.026) ** 2 + ((z - 0.639) / 0.009) ** 2 < 1)] = MOUTH
        return region

    def colour(self, fields: RestFields) -> np.ndarray:
        """Return the `(n, 3)` colours, 0 to 255, at rest-pose points."""
        x, y, z = fields.xyz.T
        region = self.region(fields)
        skin = np.array(self.skin, float)
        flat = {SKIN: skin, HAIR: self.hair, SHOES: self.shoes, EYES: (40, 32, 30), MOUTH: skin * (0.78, 0.55, 0.55)}
        colours = np.zeros((len(x), 3))
        for number, colour in flat.items():
            colours[region == number] = colour
        sleeve = fields.arm > 0.5
        # Along a sleeve the arm itself takes the place of the vertical.
        height = np.where(sleeve, CHEST_Z + 0.16 - 0.25 * fields.along, z)
        # Below the hips, the middle of a leg moves outwards by 0.14 m per metre.
        leg = np.sign(x) * 0.14 * np.clip(HIP_Z - z, 0, None)
        across = np.where(sleeve, np.abs(x) * 0.72 + z * 0.68, x - leg)
        for number, pattern in ((UPPER, self.upper), (LOWER, self.lower)):
            chosen = region == number
            colours[chosen] = pattern.paint(across[chosen], height[chosen], sleeve[chosen])
        torso = (region == UPPER) & ~sleeve
        for figure, side in ((self.front, y < -0.045), (self.back, y >= -0.045)):
            if figure is not None:
                mirror = 1 if figure is self.front else -1
                mask = print_mask(figure.kind, mirror * x / figure.size, (z - figure.centre) / figure.size)
                colours[torso & side & mask] = figure.colour
        return colours

    def thickness(self, fields: RestFields) -> np.ndarray:
        """Return by how many metres clothes and hair stand off the body, `(n,)`."""
        region = self.region(fields)
        upper, lower, hair = self.loose
        brow = (region == HAIR) & (fields.xyz[:, 1] < -0.1) & (fields.xyz[:, 2] < 0.765)
        return np.select(
            [brow, region == UPPER, region == LOWER, region == HAIR, region == SHOES], [0.0, upper, lower, hair, 0.008]
        )


def _distinct(rng: np.random.Generator, *others: Colour, least: float = 130.0) -> Colour:
    """Draw a clothing colour that differs from all others by at least `least` in RGB distance."""
    choices = [c for c in CLOTHES.values() if all(np.linalg.norm(np.subtract(c, o)) >= least for o in others)]
    return choices[rng.integers(len(choices))]


def _sample_pattern(
    rng: np.random.Generator, first: Colour, skin: Colour, *, patterned: float, kinds: tuple[str, ...]
) -> Pattern:
    kind = str(rng.choice(kinds)) if rng.random() < patterned else "plain"
    low, high = (0.15, 0.22) if kind in ("dots", "checks") else (0.13, 0.24)
    second = _distinct(rng, first, skin, least=120)
    return Pattern(kind, first, second, float(rng.uniform(low, high)), float(rng.random()))


def sample_look(rng: np.random.Generator) -> Look:
    """Draw one person."""
    phenotype = {
        "gender": float(rng.random()),
        "age": float(rng.uniform(0.6, 0.95)),
        "muscle": float(rng.uniform(0.3, 0.75)),
        "weight": float(rng.uniform(0.25, 0.8)),
        "height": float(rng.uniform(0.25, 0.55)),
        "proportions": float(rng.uniform(0.3, 0.9)),
    }
    skin = SKINS[rng.integers(len(SKINS))]
    first = _distinct(rng, skin, least=70)
    upper = _sample_pattern(rng, first, skin, patterned=0.6, kinds=PATTERNS)
    lower_kinds = ("horizontal stripes", "vertical stripes", "checks", "halves")
    lower_first = _distinct(rng, first, skin, least=80)
    lower = _sample_pattern(rng, lower_first, skin, patterned=0.3, kinds=lower_kinds)
    if rng.random() < 0.1:  # one piece, such as a dress or an overall
        lower = upper

    def figure(probability: float) -> Print | None:
        if rng.random() >= probability:
            return None
        colour = _distinct(rng, upper.first, upper.second, least=110)
        return Print(str(rng.choice(PRINTS)), colour, float(rng.uniform(0.075, 0.1)), float(rng.uniform(0.29, 0.35)))

    plain = upper.kind in ("plain", "sleeves", "halves")
    hems = (-0.735, -0.735, -0.735, -0.5, -0.28, -0.2)
    background = np.array(BACKGROUNDS[rng.integers(len(BACKGROUNDS))])
    shade = rng.integers(0, 22)
    return Look(
        phenotype=phenotype,
        skin=skin,
        hair=HAIRS[rng.integers(len(HAIRS))],
        hair_length=float(rng.choice([0.0, 0.0, 0.06, 0.14, 0.2])),
        upper=upper,
        lower=lower,
        shoes=_distinct(rng, skin, least=60),
        sleeve=float(rng.choice([0.15, 0.65, 0.65, 1.1, 1.9, 1.9]) + rng.uniform(-0.05, 0.05)),
        neckline=float(rng.choice([0.0, 0.03, 0.09])),
        waist=float(rng.uniform(-0.04, 0.12)),
        hem=float(rng.choice(hems) + rng.uniform(-0.01, 0.03)),
        loose=(float(rng.uniform(0.006, 0.02)), float(rng.uniform(0.004, 0.016)), float(rng.uniform(0.012, 0.028))),
        front=figure(0.75 if plain else 0.12),
        back=figure(0.5 if plain else 0.08),
        background=(tuple(background.tolist()), tuple((background - shade).tolist())),
    )
