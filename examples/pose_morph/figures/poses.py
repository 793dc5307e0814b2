"""Random natural poses, drawn around a few postures of arms and legs."""

from dataclasses import dataclass

import numpy as np

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Arm:
    """Where the two halves of an arm point, for the left arm: x outwards, y backwards, z up. The right arm mirrors it.

    Attributes:
        upper: direction from shoulder to elbow.
        lower: direction from elbow to wrist.
        pronation: turn of the lower arm about itself in radians.
        twist_limit: largest turn of the upper arm about itself in radians.
    """

    upper: Vector
    lower: Vector
    pronation: float = 0.0
    twist_limit: float = 1.6


@dataclass(frozen=True)
class Leg:
    """Angles of a leg in radians: thigh forward, thigh outward, thigh turned out, knee bent, all 0 when standing."""

    flex: float = 0.0
    spread: float = 0.0
    turnout: float = 0.0
    knee: float = 0.0


@dataclass(frozen=True)
class Pose:
    """A whole pose; angles in radians.

    Attributes:
        yaw: turn of the body about the vertical; positive turns the face to the picture's right.
        roll: sideways tilt of the whole body.
        bend: forward bend of the spine.
        lean: sideways bend of the spine.
        twist: turn of the chest against the hips.
        head_yaw: turn of the head against the chest.
        head_pitch: nod.
        left_arm: the person's own left arm.
        right_arm: the person's own right arm.
        left_leg: the person's own left leg.
        right_leg: the person's own right leg.
    """

    yaw: float
    roll: float
    bend: float
    lean: float
    twist: float
    head_yaw: float
    head_pitch: float
    left_arm: Arm
    right_arm: Arm
    left_leg: Leg
    right_leg: Leg


# name: (weight, direction of the upper arm, direction of the lower arm)
ARM_POSTURES: dict[str, tuple[float, Vector, Vector]] = {
    "at the side": (2.0, (0.28, 0.02, -1.0), (0.2, -0.2, -1.0)),
    "away from the side": (1.5, (0.6, 0.0, -0.8), (0.4, -0.15, -0.9)),
    "hand on the hip": (1.2, (0.75, 0.3, -0.7), (-0.5, -0.3, -0.75)),
    "held in front": (1.2, (0.25, 0.05, -1.0), (-0.1, -0.8, -0.1)),
    "hand on the belly": (0.8, (0.4, 0.0, -0.9), (-0.65, -0.8, -0.05)),
    "swung back": (0.8, (0.25, 0.4, -0.9), (0.2, 0.1, -1.0)),
    "stretched forward": (0.8, (0.35, -0.75, -0.3), (0.15, -0.9, 0.25)),
    "waving": (1.0, (0.65, -0.05, -0.75), (0.45, -0.35, 0.85)),
    "strong": (1.0, (0.95, 0.0, -0.05), (0.1, -0.25, 1.0)),
    "raised": (1.5, (0.5, -0.1, 0.9), (0.15, -0.2, 1.0)),
    "hand at the head": (0.8, (0.9, -0.05, 0.35), (-0.65, -0.25, 0.75)),
}

# name: (weight, one leg, the other leg), in degrees: flex, spread, turnout, knee
LEG_POSTURES: dict[str, tuple[float, Vector, float, Vector, float]] = {
    "standing": (2.0, (0, -2, 5), 2, (0, -2, 5), 2),
    "apart": (1.5, (2, 11, 10), 4, (2, 11, 10), 4),
    "relaxed": (1.2, (22, 6, 18), 32, (-2, -3, 4), 1),
    "walking": (1.8, (27, -2, 2), 10, (-14, -2, 3), 22),
    "lunging": (0.6, (45, 3, 4), 55, (-18, 2, 5), 12),
    "knee raised": (0.8, (65, 4, 8), 80, (-2, -3, 3), 2),
    "crouching": (0.7, (32, 7, 12), 55, (32, 7, 12), 55),
    "side step": (0.8, (5, 20, 15), 8, (8, 2, 8), 14),
}


def _pick(rng: np.random.Generator, postures: dict) -> tuple:
    weights = np.array([entry[0] for entry in postures.values()])
    return list(postures.values())[rng.choice(len(postures), p=weights / weights.sum())][1:]


def _sample_arm(rng: np.random.Generator) -> Arm:
    upper, lower = _pick(rng, ARM_POSTURES)

    def jitter(direction: Vector, scale: float) -> Vector:
        moved = np.array(direction) / np.linalg.norm(direction) + rng.normal(0, scale, 3)
        return tuple(float(value) for value in moved)

    return Arm(jitter(upper, 0.07), jitter(lower, 0.09), pronation=float(rng.uniform(-0.4, 0.4)))


def _sample_legs(rng: np.random.Generator) -> tuple[Leg, Leg]:
    first, first_knee, second, second_knee = _pick(rng, LEG_POSTURES)

    def jitter(angles: Vector, knee: float) -> Leg:
        flex, spread, turnout = np.radians(np.array(angles) + rng.normal(0, (4, 2, 4)))
        return Leg(float(flex), float(spread), float(turnout), float(np.radians(max(0.0, knee + rng.normal(0, 5)))))

    legs = jitter(first, first_knee), jitter(second, second_knee)
    return legs if rng.random() < 0.5 else legs[::-1]


def sample_pose(rng: np.random.Generator, *, back: bool) -> Pose:
    """Draw one pose; `back` turns the person's back to the camera."""
    yaw = np.clip(rng.normal(0, 27), -52, 52)
    left_leg, right_leg = _sample_legs(rng)
    deg = np.radians
    crouch = min(left_leg.knee, right_leg.knee)
    return Pose(
        yaw=float(deg(yaw + (180 if back else 0))),
        roll=float(deg(rng.normal(0, 2.0))),
        bend=float(deg(rng.normal(2, 6)) + 0.45 * crouch),
        lean=float(deg(rng.normal(0, 8))),
        twist=float(deg(rng.normal(0, 9))),
        head_yaw=float(deg(np.clip(rng.normal(0, 14), -35, 35))),
        head_pitch=float(deg(rng.normal(2, 6)) - 0.25 * crouch),
        left_arm=_sample_arm(rng),
        right_arm=_sample_arm(rng),
        left_leg=left_leg,
        right_leg=right_leg,
    )
