"""An orthographic camera that also tells which rest-pose point lies under every pixel."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from examples.pose_morph.errors import UserError
from examples.pose_morph.figures.body import INSTALL_HINT, PosedBody, RestFields
from examples.pose_morph.figures.wardrobe import Look

LIGHT = np.array([-0.45, -0.75, 0.5]) / np.linalg.norm([-0.45, -0.75, 0.5])


@dataclass(frozen=True)
class View:
    """An orthographic projection: `column = left + scale * x`, `row = top - scale * z`, in pixels.

    Attributes:
        scale: pixels per metre.
        left: column of the model's x = 0.
        top: row of the model's z = 0.
    """

    scale: float
    left: float
    top: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return `(n, 2)` rows and columns in a frame whose first pixel's centre is (0, 0)."""
        return np.stack([self.top - self.scale * points[:, 2], self.left + self.scale * points[:, 0]], axis=1) - 0.5


@dataclass(frozen=True)
class Photo:
    """One rendered picture.

    Attributes:
        pixels: `(height, width, 3)` uint8.
        rest_points: `(height, width, 3)` float32, the template's rest-pose point at each pixel's centre, NaN outside
            the person. Two photos of one person show the same piece of skin or cloth where these agree.
        joints: `(18, 2)` int rows and columns, -1 where missing.
    """

    pixels: np.ndarray
    rest_points: np.ndarray
    joints: np.ndarray


@cache
def _warp() -> tuple[Any, Any]:
    """Return warp and the kernel that sends one ray per thread along +y."""
    try:
        import warp as wp
    except ImportError as error:
        raise UserError(INSTALL_HINT) from error

    @wp.kernel
    def cast(
        mesh: wp.uint64, origins: wp.array(dtype=wp.vec3), faces: wp.array(dtype=wp.int32), uv: wp.array(dtype=wp.vec2)
    ):
        thread = wp.tid()
        hit = wp.mesh_query_ray(mesh, origins[thread], wp.vec3(0.0, 1.0, 0.0), 10.0)
        faces[thread] = wp.where(hit.result, hit.face, -1)
        uv[thread] = wp.vec2(hit.u, hit.v)

    return wp, cast


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.stack([np.bincount(faces.ravel(), np.repeat(flat[:, i], 3), len(vertices)) for i in range(3)], axis=1)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def dressed(body: PosedBody, look: Look, fields: RestFields, faces: np.ndarray) -> np.ndarray:
    """Return the posed vertices moved outwards by the thickness of clothes and hair."""
    thickness = look.thickness(fields)
    return body.vertices + thickness[:, None] * _normals(body.vertices, faces)


def frame_body(
    vertices: np.ndarray, height: float, rng: np.random.Generator, size: tuple[int, int]
) -> tuple[View, float]:
    """Fit a body into a frame of `size` (height, width) in pixels.

    Returns:
        The view, and how much of the size it would have without the frame's limits is left (1 = all).
    """
    low, high = vertices.min(0), vertices.max(0)
    unit = size[0] / 128  # margins and sizes below are pixels of a frame 128 high
    wanted = unit * (114 + 24 * (height - 1.7)) / height
    scale = min(wanted, (size[0] - 5 * unit) / (high[2] - low[2]), (size[1] - 4 * unit) / (high[0] - low[0]))
    free_rows = size[0] - 4 * unit - scale * (high[2] - low[2])
    free_columns = size[1] - 3 * unit - scale * (high[0] - low[0])
    top = 2 * unit + rng.uniform(0.3, 0.7) * free_rows + scale * high[2]
    left = 1.5 * unit + rng.uniform(0.3, 0.7) * free_columns - scale * low[0]
    return View(scale, left, top), scale / wanted


def photograph(
    body: PosedBody,
    look: Look,
    fields: RestFields,
    faces: np.ndarray,
    view: View,
    size: tuple[int, int],
    *,
    oversample: int = 3,
) -> Photo:
    """Render one body.

    Args:
        body: the posed body.
        look: its colours.
        fields: rest-pose fields of the vertices.
        faces: `(m, 3)` triangles.
        view: the projection.
        size: height and width of the picture.
        oversample: rays per pixel along each side; odd, so that one ray meets the pixel's centre.
    """
    if oversample % 2 != 1:
        raise ValueError(f"oversample: expected an odd number, got {oversample}")
    wp, cast = _warp()
    vertices = dressed(body, look, fields, faces)
    height, width = size
    rows, columns = height * oversample, width * oversample
    z = (view.top - (np.arange(rows) + 0.5) / oversample) / view.scale
    x = ((np.arange(columns) + 0.5) / oversample - view.left) / view.scale
    origins = np.stack(np.broadcast_arrays(x[None, :], -5.0, z[:, None]), axis=-1).reshape(-1, 3)
    mesh = wp.Mesh(
        points=wp.array(vertices.astype(np.float32), dtype=wp.vec3, device="cpu"),
        indices=wp.array(faces.ravel(), dtype=wp.int32, device="cpu"),
    )
    hit_faces = wp.empty(len(origins), dtype=wp.int32, device="cpu")
    hit_uv = wp.empty(len(origins), dtype=wp.vec2, device="cpu")
    wp.launch(
        cast,
        dim=len(origins),
        inputs=[mesh.id, wp.array(origins.astype(np.float32), dtype=wp.vec3, device="cpu")],
        outputs=[hit_faces, hit_uv],
        device="cpu",
    )
    face, uv = hit_faces.numpy(), hit_uv.numpy()
    hit = face >= 0
    corner_weights = np.column_stack([uv[hit], 1 - uv[hit].sum(1)])
    corners = faces[face[hit]]

    def interpolate(values: np.ndarray) -> np.ndarray:
        return np.einsum("nk,nkc->nc", corner_weights, values[corners])

    under = RestFields.from_stacked(interpolate(fields.stacked()))
    normals = interpolate(_normals(vertices, faces))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    shading = 0.76 + 0.3 * np.clip(normals @ LIGHT, 0, None)
    above, below = (np.array(colour, float) for colour in look.background)
    canvas = above + (below - above) * np.linspace(0, 1, rows)[:, None, None] * np.ones((1, columns, 1))
    canvas = canvas.reshape(-1, 3)
    canvas[hit] = np.clip(look.colour(under) * shading[:, None], 0, 255)
    pixels = canvas.reshape(height, oversample, width, oversample, 3).mean((1, 3))

    rest_points = np.full((len(origins), 3), np.nan, dtype=np.float32)
    rest_points[hit] = under.xyz
    middle = oversample // 2
    rest_points = rest_points.reshape(rows, columns, 3)[middle::oversample, middle::oversample]

    joints = np.rint(view.project(body.joints)).astype(int)
    outside = (joints < 0).any(1) | (joints >= size).any(1)
    joints[outside | body.hidden] = -1
    return Photo(np.rint(pixels).astype(np.uint8), rest_points, joints)
