"""The articulated body: Anny's mesh, turned by anatomical angles, with 18 joints in OpenPose order.

The model space is in metres: x to the person's left, y to the back, z up. The camera looks along +y.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.figures.poses import Arm, Leg, Pose

INSTALL_HINT = "rendering needs the body model: python -m pip install anny warp-lang (after torch)"

# OpenPose order. Limb joints are bone heads; the neck is the middle of the shoulders; the face lies on the surface.
LIMB_BONES = {
    2: "upperarm01.R",
    3: "lowerarm01.R",
    4: "wrist.R",
    5: "upperarm01.L",
    6: "lowerarm01.L",
    7: "wrist.L",
    8: "upperleg01.R",
    9: "lowerleg01.R",
    10: "foot.R",
    11: "upperleg01.L",
    12: "lowerleg01.L",
    13: "foot.L",
}
FACE_JOINTS = (0, 14, 15, 16, 17)
# Where nose, right eye, left eye, right ear and left ear look, as angles to the left of the face's direction.
FACE_ANGLES = np.radians([0.0, -20.0, 20.0, -90.0, 90.0])
HIDDEN_BEYOND = np.radians(100.0)
SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
NECK = ("neck01", "neck02", "neck03", "head")


def rotation(axis: np.ndarray | str, angle: float) -> np.ndarray:
    """Return the (3, 3) rotation by `angle` radians about a vector, or about the axis named x, y or z."""
    if isinstance(axis, str):
        axis = np.eye(3)["xyz".index(axis)]
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def swing(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the smallest rotation that takes the direction `start` to the direction `end`."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    if np.linalg.norm(axis) < 1e-9:
        return np.eye(3)
    return rotation(axis, np.arctan2(np.linalg.norm(axis), start @ end))


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle between two vectors in radians."""
    return float(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b))


@dataclass(frozen=True)
class RestFields:
    """What the clothes are functions of: one row per vertex, or per point once interpolated.

    Attributes:
        xyz: `(n, 3)` point of the template body in its rest pose, the same for every person.
        arm: `(n,)` share of the arm bones in the skinning weights.
        head: `(n,)` share of the head and neck bones.
        along: `(n,)` position along the arm: 0 shoulder, 1 elbow, 2 wrist.
    """

    xyz: np.ndarray
    arm: np.ndarray
    head: np.ndarray
    along: np.ndarray

    def stacked(self) -> np.ndarray:
        """Return all fields as the columns of one `(n, 6)` array."""
        return np.column_stack([self.xyz, self.arm, self.head, self.along])

    @classmethod
    def from_stacked(cls, columns: np.ndarray) -> "RestFields":
        """Undo `stacked`."""
        return cls(columns[:, :3], columns[:, 3], columns[:, 4], columns[:, 5])


@dataclass(frozen=True)
class PosedBody:
    """One body in one pose.

    Attributes:
        vertices: `(n, 3)` posed vertices in metres.
        joints: `(18, 3)` joints in OpenPose order.
        hidden: `(18,)` true for face joints that look away from the camera.
        height: height of the body in its rest pose in metres.
    """

    vertices: np.ndarray
    joints: np.ndarray
    hidden: np.ndarray
    height: float


class Body:
    """Anny's full body with the MakeHuman rig, posed by anatomical angles.

    Raises:
        UserError: with the packages to install, if Anny is missing.
    """

    def __init__(self) -> None:
        try:
            import anny
        except ImportError as error:
            raise UserError(INSTALL_HINT) from error
        self.model: Any = anny.Anny(rig="makehuman")
        self.bones = {name: i for i, name in enumerate(self.model.bone_labels)}
        self.faces = self.model.get_triangular_faces().numpy().astype(np.int32)
        self.rest_fields = self._rest_fields()
        template = self.rest_fields.xyz
        face = template[:, 2] > 0.6
        ear = np.array([0.085, -0.035, 0.72])
        eye = np.array([0.031, -0.160, 0.728])
        mirror = np.array([-1, 1, 1])
        nose = template[face][template[face][:, 1].argmin()]
        targets = np.stack([nose, eye * mirror, eye, ear * mirror, ear])
        self.face_vertices = ((template[None] - targets[:, None]) ** 2).sum(-1).argmin(1)

    def _rest_fields(self) -> RestFields:
        model = self.model
        xyz = model.template_vertices.numpy()
        heads = model.template_bone_heads.numpy()
        weights, indices = model.vertex_bone_weights.numpy(), model.vertex_bone_indices.numpy()

        def share(*stems: str) -> np.ndarray:
            chosen = np.array([name.startswith(stems) for name in model.bone_labels])
            return (weights * chosen[indices]).sum(1)

        arm = share("upperarm", "lowerarm", "wrist", "finger", "metacarpal")
        trunk = share("root", "pelvis", "spine", "breast", "clavicle", "shoulder")
        head = 1 - arm - trunk - share("upperleg", "lowerleg", "foot", "toe")
        left = np.abs(xyz * [1, 0, 0]) + xyz * [0, 1, 1]
        shoulder, elbow, wrist = (heads[self.bones[f"{name}.L"]] for name in ("upperarm01", "lowerarm01", "wrist"))

        def fraction(start: np.ndarray, end: np.ndarray) -> np.ndarray:
            return (left - start) @ (end - start) / ((end - start) @ (end - start))

        along = np.clip(fraction(shoulder, elbow), -0.5, 1) + np.clip(fraction(elbow, wrist), 0, 2)
        return RestFields(xyz, arm, head, along)

    def posed(self, phenotype: dict[str, float], pose: Pose) -> PosedBody:
        """Return the body of one phenotype in one pose.

        Args:
            phenotype: Anny's `gender`, `age`, `muscle`, `weight`, `height` and `proportions`, each in [0, 1].
            pose: the pose.
        """
        rest = self.model(phenotype_kwargs=phenotype)
        turns = np.tile(np.eye(4), (1, len(self.bones), 1, 1))
        for bone, turn in self._turns(pose, rest["rest_bone_heads"][0].numpy()).items():
            turns[0, self.bones[bone], :3, :3] = turn
        out = self.model(pose_parameters=torch.from_numpy(turns), phenotype_kwargs=phenotype)
        vertices, bones = out["vertices"][0].numpy(), out["bone_poses"][0].numpy()
        joints = np.zeros((18, 3))
        for joint, bone in LIMB_BONES.items():
            joints[joint] = bones[self.bones[bone], :3, 3]
        joints[1] = (joints[2] + joints[5]) / 2
        joints[list(FACE_JOINTS)] = vertices[self.face_vertices]
        head = self.bones["head"]
        facing = bones[head, :3, :3] @ rest["rest_bone_poses"][0, head, :3, :3].numpy().T
        looks = np.stack([np.sin(FACE_ANGLES), -np.cos(FACE_ANGLES), np.zeros(5)], axis=1) @ facing.T
        hidden = np.zeros(18, dtype=bool)
        hidden[list(FACE_JOINTS)] = np.arccos(np.clip(-looks[:, 1], -1, 1)) > HIDDEN_BEYOND
        height = float(np.ptp(rest["rest_vertices"][0, :, 2].numpy()))
        return PosedBody(vertices, joints, hidden, height)

    def _turns(self, pose: Pose, heads: np.ndarray) -> dict[str, np.ndarray]:
        """Return each turned bone's rotation about the axes of the rest pose, relative to its parent."""
        turns = {"root": rotation("z", pose.yaw) @ rotation("y", pose.roll)}
        share = 1 / len(SPINE)
        for bone in SPINE:
            turns[bone] = (
                rotation("z", pose.twist * share) @ rotation("y", pose.lean * share) @ rotation("x", pose.bend * share)
            )
        for bone in NECK:
            turns[bone] = rotation("z", pose.head_yaw / len(NECK)) @ rotation("x", pose.head_pitch / len(NECK))
        for side, arm, leg in (("L", pose.left_arm, pose.left_leg), ("R", pose.right_arm, pose.right_leg)):
            turns |= self._arm_turns(side, arm, heads)
            turns |= _leg_turns(side, leg)
        return turns

    def _arm_turns(self, side: str, arm: Arm, heads: np.ndarray) -> dict[str, np.ndarray]:
        """Turn shoulder and elbow so that upper and lower arm point along the wanted directions.

        The elbow is a hinge, so the upper arm also twists about itself, half at each of its two bones, until the
        hinge's plane holds the lower arm.
        """
        mirror = np.array([1.0 if side == "L" else -1.0, 1.0, 1.0])
        shoulder, elbow, wrist = (heads[self.bones[f"{name}.{side}"]] for name in ("upperarm01", "lowerarm01", "wrist"))
        upper, lower = elbow - shoulder, wrist - elbow
        upper_wanted, lower_wanted = np.array(arm.upper) * mirror, np.array(arm.lower) * mirror
        hinge = np.cross(upper, lower)
        # A raised arm lifts its collar bone by a part of the angle above the horizontal.
        rise = max(0.0, np.arcsin(upper_wanted[2] / np.linalg.norm(upper_wanted)) + 0.3) * 0.35
        collar = rotation("y", -rise * mirror[0])
        swung = collar.T @ swing(upper, upper_wanted)
        plane = collar.T @ np.cross(upper_wanted, lower_wanted)
        axis = swung @ upper / np.linalg.norm(upper)
        turned = swung @ hinge
        twist = np.arctan2(axis @ np.cross(turned, plane), turned @ plane - (turned @ axis) * (plane @ axis))
        twist = np.clip(twist, -arm.twist_limit, arm.twist_limit)
        bend = angle_between(upper_wanted, lower_wanted) - angle_between(upper, lower)
        return {
            f"clavicle.{side}": collar,
            f"upperarm01.{side}": swung @ rotation(upper, twist / 2),
            f"upperarm02.{side}": rotation(upper, twist / 2),
            f"lowerarm01.{side}": rotation(hinge, bend),
            f"lowerarm02.{side}": rotation(lower, arm.pronation * mirror[0]),
        }


def _leg_turns(side: str, leg: Leg) -> dict[str, np.ndarray]:
    sign = 1.0 if side == "L" else -1.0
    return {
        f"upperleg01.{side}": rotation("y", -leg.spread * sign)
        @ rotation("x", -leg.flex)
        @ rotation("z", leg.turnout * sign),
        f"lowerleg01.{side}": rotation("x", leg.knee),
        f"foot.{side}": rotation("x", float(np.clip(leg.flex - leg.knee, -0.5, 0.35))),
    }
