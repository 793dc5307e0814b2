"""What the engine's functions ask of their arguments, said once for all backends."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gpa_nd.checks import check_int, check_tensor
from gpa_nd.layout import Layout

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
AFFINITIES = ("dot", "euclidean")
RANKINGS = ("mean", "rms", "moments", "rerank")
BACKENDS = ("auto", "reference", "torch", "triton")
UNSELECTED = ("ignored", "pooled")


def check_tokens(tensors: dict[str, Tensor], layout: Layout, enable_gqa: bool = False) -> None:
    """Flat tokens by name, q (B, H, n_q, c), k (B, H, n_k, c) and perhaps v (B, H, n_k, c_v), and their layout.

    Raises:
        TypeError: something is not a tensor or a Layout, or dtypes are mixed or not floating point.
        ValueError: shapes or devices that do not fit one another.
    """
    if not isinstance(layout, Layout):
        raise TypeError(f"layout: expected a Layout, got {type(layout).__name__}")
    check_structured(tensors, enable_gqa)
    for name, groups in (("q", layout.query_groups), ("k", layout.key_groups)):
        shape = tuple(tensors[name].shape)
        if len(shape) != 4:
            raise ValueError(f"{name}: expected shape (batch, heads, elements, channels), got {shape}")
        if shape[2] != groups.num_elements:
            raise ValueError(f"{name}: the layout is for {groups.num_elements} elements, got {shape[2]} in {shape}")
    if tensors["q"].device != layout.device:
        raise ValueError(
            f"layout: expected it on {tensors['q'].device}, where q is, got {layout.device}; see Layout.to"
        )


def check_structured(tensors: dict[str, Tensor], enable_gqa: bool = False) -> None:
    """Tensors by name, q, k and perhaps v, each (B, H, *shape, channels), whose type, device and sizes agree.

    Raises:
        TypeError: something is not a tensor, or dtypes are mixed or not floating point.
        ValueError: devices, batch entries, heads, channels or (of v) elements that differ.
    """
    q, k = tensors["q"], tensors["k"]
    for name, x in tensors.items():
        check_tensor(name, x)
        if x.dtype not in DTYPES:
            raise TypeError(f"{name}: expected float16, bfloat16, float32 or float64, got {x.dtype}")
        if x.dtype != q.dtype:
            raise TypeError(f"{name}: expected {q.dtype} as q has, got {x.dtype}")
        if x.device != q.device:
            raise ValueError(f"{name}: expected it on {q.device}, where q is, got {x.device}")
        if x.ndim < 4:
            raise ValueError(f"{name}: expected shape (batch, heads, elements …, channels), got {tuple(x.shape)}")
        if name != "q":
            _check_heads(name, x, q, enable_gqa)
        if not x.shape[-1]:
            raise ValueError(f"{name}: expected at least one channel, got shape {tuple(x.shape)}")
        if name == "v" and x.shape[1] != k.shape[1]:
            raise ValueError(f"v: expected {k.shape[1]} heads as k has, got {x.shape[1]}")
        if name == "v" and x.shape[2:-1] != k.shape[2:-1]:
            raise ValueError(f"v: expected elements {tuple(k.shape[2:-1])} as k has, got {tuple(x.shape[2:-1])}")
    if k.shape[-1] != q.shape[-1]:
        raise ValueError(f"k: expected {q.shape[-1]} channels as q has, got {k.shape[-1]}")


def _check_heads(name: str, x: Tensor, other: Tensor, shared: bool) -> None:
    """Batch entries and heads as in ``other``; of shared heads, as many as divide the other's."""
    heads, of_other = x.shape[1], other.shape[1]
    if x.shape[0] == other.shape[0] and (heads == of_other or (shared and heads and of_other % heads == 0)):
        return
    expected = f"batch and heads {tuple(other.shape[:2])} as q has"
    if not shared and x.shape[0] == other.shape[0] and heads and of_other % heads == 0:
        expected += ", or enable_gqa=True"
    if shared:
        expected = f"batch {other.shape[0]} and a number of heads that divides the {of_other} of q"
    raise ValueError(f"{name}: expected {expected}, got {tuple(x.shape[:2])}")


def check_choices(scale: float | None, affinity: str, backend: str) -> None:
    """The arguments that are the same everywhere.

    Raises:
        TypeError: ``scale`` is not a number.
        ValueError: ``scale`` is not finite, or ``affinity`` or ``backend`` is unknown or not there.
    """
    if scale is not None and (not isinstance(scale, int | float) or isinstance(scale, bool)):
        raise TypeError(f"scale: expected a number or None, got {type(scale).__name__}")
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale: expected a finite number, got {scale}")
    if affinity not in AFFINITIES:
        raise ValueError(f"affinity: expected one of {', '.join(map(repr, AFFINITIES))}, got {affinity!r}")
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")


def check_ranking(ranking: str, affinity: str, mass: float | None, layout: Layout | None = None) -> None:
    """By what coarse keys are ranked, and how much of the attention they shall hold.

    Raises:
        TypeError: ``mass`` is not a number.
        ValueError: a ranking that is unknown or not defined for the affinity, a layout without the parts of groups that
            it compares, or a mass outside (0, 1].
    """
    if mass is not None and (not isinstance(mass, int | float) or isinstance(mass, bool)):
        raise TypeError(f"mass: expected a number or None, got {mass!r}")
    if mass is not None and not 0 < mass <= 1:
        raise ValueError(f"mass: expected a part above 0 and at most 1, got {mass}")
    if ranking not in RANKINGS:
        raise ValueError(f"ranking: expected one of {', '.join(map(repr, RANKINGS))}, got {ranking!r}")
    if ranking in ("rms", "moments") and affinity != "dot":
        raise ValueError(f"ranking: {ranking!r} is for affinity='dot', got affinity={affinity!r}")
    while ranking == "rerank" and layout is not None:
        if layout.query_parts is None:
            raise ValueError(
                "ranking: 'rerank' expected a layout with query_parts and key_parts, as the method layout of a "
                "GPA(…, ranking='rerank') makes them, got one without"
            )
        layout = layout.coarser


def check_unselected(unselected: str) -> None:
    """What becomes of coarse keys that are not selected.

    Raises:
        ValueError: anything unknown.
    """
    if unselected not in UNSELECTED:
        raise ValueError(f"unselected: expected one of {', '.join(map(repr, UNSELECTED))}, got {unselected!r}")


def check_relevant(relevant: Tensor, logits: Tensor | None, q: Tensor, layout: Layout) -> None:
    """The selected coarse keys (B, H, m, r), and what is added to their scores.

    Raises:
        TypeError: ``relevant`` is not int64, or ``logits`` is not floating point.
        ValueError: wrong shapes or devices, or an entry that is neither a coarse key nor −1 or −2.
    """
    if not isinstance(relevant, Tensor) or relevant.dtype != torch.int64:
        got = relevant.dtype if isinstance(relevant, Tensor) else type(relevant).__name__
        raise TypeError(f"relevant: expected an int64 tensor, got {got}")
    expected = (*q.shape[:2], len(layout.query_cells))
    if relevant.ndim != 4 or relevant.shape[:3] != expected:
        raise ValueError(f"relevant: expected shape {expected} and the selected keys, got {tuple(relevant.shape)}")
    if relevant.device != q.device:
        raise ValueError(f"relevant: expected it on {q.device}, where q is, got {relevant.device}")
    if relevant.numel() and not torch.compiler.is_compiling():  # compiled code cannot look at values
        least, most = torch.stack(relevant.aminmax()).tolist()  # waits for a GPU once
        if least < -2 or most >= len(layout.members):
            raise ValueError(
                f"relevant: expected coarse keys 0 … {len(layout.members) - 1}, −1 or −2, got {least} … {most}"
            )
    if logits is None:
        return
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        got = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits: expected a floating point tensor, got {got}")
    if logits.shape != relevant.shape:
        raise ValueError(f"logits: expected shape {tuple(relevant.shape)} as relevant has, got {tuple(logits.shape)}")
    if logits.device != q.device:
        raise ValueError(f"logits: expected it on {q.device}, where q is, got {logits.device}")


def check_kappa(kappa: int | tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Coarse keys to select at each level, finest first; one number means the same at every level.

    Raises:
        TypeError: neither an int nor a tuple of ints.
        ValueError: a number below 1, or another number of levels than the layout has.
    """
    kappas = tuple(kappa) if isinstance(kappa, tuple | list) else (kappa,) * layout.levels
    for number in kappas:
        check_int("kappa", number, at_least=1)
    if len(kappas) != layout.levels:
        raise ValueError(f"kappa: expected one number for each of {layout.levels} levels, got {kappa}")
    return kappas


def check_key_bias(key_mask: Tensor | None, key_bias: Tensor | None, k: Tensor) -> None:
    """Which keys are masked (B, n_k), and what is added to their affinities (B, H_k, n_k).

    Raises:
        TypeError: ``key_mask`` is not boolean, or ``key_bias`` is not floating point.
        ValueError: wrong shapes or devices.
    """
    for name, x, shape, kind, fits in (
        ("key_mask", key_mask, (k.shape[0], *k.shape[2:-1]), "a boolean", lambda x: x.dtype == torch.bool),
        ("key_bias", key_bias, tuple(k.shape[:-1]), "a floating point", torch.is_floating_point),
    ):
        if x is None:
            continue
        if not isinstance(x, Tensor) or not fits(x):
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name}: expected {kind} tensor, got {got}")
        if tuple(x.shape) != shape:
            fits_repeated = x.ndim <= len(shape) and all(
                n in (1, size) for n, size in zip(reversed(x.shape), reversed(shape), strict=False)
            )
            more = f"; it is not broadcast, {name}.expand{shape} fits" if fits_repeated else ""
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(x.shape)}{more}")
        if x.device != k.device:
            raise ValueError(f"{name}: expected it on {k.device}, where k is, got {x.device}")


def check_no_tangents(backend: str, tensors: tuple[Tensor, ...]) -> None:
    """Forward-mode derivatives, which an operator without them would take for zero.

    Raises:
        NotImplementedError: a tensor carries a tangent.
    """
    if torch.compiler.is_compiling():
        return
    if any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise NotImplementedError(f"backend {backend!r} has no forward-mode derivatives; backend='reference' has them")
