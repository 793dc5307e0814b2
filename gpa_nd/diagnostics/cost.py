"""What a GPA costs, before it runs: operations, traffic and memory, counted from its layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from gpa_nd.checks import check_int
from gpa_nd.diagnostics.blocked_work import Sizes
from gpa_nd.diagnostics.call_work import Call, call
from gpa_nd.diagnostics.fused_memory import FLOAT
from gpa_nd.diagnostics.pairs import pairs
from gpa_nd.diagnostics.work import Work
from gpa_nd.engine.arguments import DTYPES, check_kappa
from gpa_nd.engine.rules import Rule, rules_of, sees_all
from gpa_nd.layout import Layout
from gpa_nd.nn.gpa import GPA
from gpa_nd.nn.tokens import TokenAttention
from gpa_nd.ops.base import Shape
from gpa_nd.selection.base import Selection


@dataclass(frozen=True)
class Cost:
    """What one call costs, over batch entries and heads; ``print`` it.

    Attributes:
        queries: n_q, and
        keys: n_k, of the structure, or of all that are packed.
        keys_per_query: to how many keys a query attends, in the mean; where groups differ in size, as if they were
            selected at random; and
        at_most: whether it may be fewer, as with a ``mass`` or a ``selection``.
        pooled_per_query: to how many pooled keys it attends beside these.
        visible_per_query: to how many it would in dense attention.
        phase1: finding relevant keys, and weighing them with a ``selection``.
        phase2: attending to them, and to pooled keys.
        backward: the gradients of q, k and v; None if they were not asked for.
        dense: dense attention of the same, which reads q, k and v once and writes the result; with its gradients where
            ``backward`` was asked for.
        token_bytes: q, k and v themselves.
        torch_bytes: memory of backend "torch" at its peak beside q, k and v; the result counts, and with ``backward``
            the gradients.
        triton_bytes: the same of backend "triton".
        dense_bytes: the same of dense attention, if it is fused.
        scores_bytes: what all scores of dense attention take, which it holds if it is not.
        left_out: what is computed and not counted; empty if nothing is.
    """

    queries: int
    keys: int
    keys_per_query: float
    at_most: bool
    pooled_per_query: float
    visible_per_query: float
    phase1: Work
    phase2: Work
    backward: Work | None
    dense: Work
    token_bytes: int
    torch_bytes: int
    triton_bytes: int
    dense_bytes: int
    scores_bytes: int
    left_out: str = ""

    @property
    def total(self) -> Work:
        """All that is done."""
        return self.phase1 + self.phase2 + (self.backward or Work())

    def __str__(self) -> str:
        done = {"Phase 1": self.phase1, "Phase 2": self.phase2}
        if self.backward is not None:
            done["backward"] = self.backward
        rows = [("", "multiply-adds", "reads", "writes")]
        for name, work in {**done, "together": self.total, "dense attention": self.dense}.items():
            rows.append((name, short(work.multiply_adds), mebibytes(work.bytes_read), mebibytes(work.bytes_written)))
        ours, dense = (max(1, work.multiply_adds) for work in (self.total, self.dense))
        less = f"{times(dense / ours)} fewer multiply-adds than" if dense >= ours else f"{times(ours / dense)} those of"
        share = self.keys_per_query / max(1, self.visible_per_query)
        fewer = "at most " if self.at_most else ""
        pooled = f", and to {self.pooled_per_query:,.0f} pooled ones" if self.pooled_per_query else ""
        lines = [
            f"{self.queries:,} queries, each of which attends to {fewer}{self.keys_per_query:,.0f} of "
            f"{self.visible_per_query:,.0f} keys ({share:.2%}){pooled}",
            *_aligned(rows),
            f"{less} dense attention",
            f"memory at the peak, beside {mebibytes(self.token_bytes)} of q, k and v:",
            f'  {mebibytes(self.torch_bytes)} with backend "torch", {mebibytes(self.triton_bytes)} with "triton"',
            f"  dense attention {mebibytes(self.dense_bytes)} fused, {mebibytes(self.dense_bytes + self.scores_bytes)} "
            "with all scores",
            *([f"not counted: {self.left_out}"] if self.left_out else []),
        ]
        return "\n".join(lines)


def cost(
    gpa: GPA,
    query_shape: Shape | Sequence[Shape] | Layout,
    key_shape: Shape | Sequence[Shape] | None = None,
    *,
    channels: int,
    value_channels: int | None = None,
    batch: int = 1,
    heads: int = 1,
    key_heads: int | None = None,
    dtype: torch.dtype = torch.float32,
    backward: bool = False,
    device: str = "cpu",
) -> Cost:
    """What a call of this GPA will cost, counted from its layout without computing anything.

    Multiply-adds and traffic are those of backend "torch", block by block as it will divide the work: cells and groups
    that differ in size, causal ranges, what is always on and every level are as they are in the layout. See
    :class:`.Work` for what counts. Masks and biases of keys are left out, and so is the layout, which is made once.

    - Every ``ranking`` is counted as it is computed. Backend "triton" has no ``"moments"``; its memory is told with
      the Phase 1 of "torch".
    - With a ``mass``, cells keep κ coarse keys at most: so do the keys per query count, and backend "torch" computes as
      many in any case.
    - With a ``selection``, queries attend to all candidates at most. What its rule makes of their scores is left out:
      ``PerturbedTopK`` holds up to 256 MiB for it, and for the gradient the square of the number
      of candidates for each cell.
    - With ``unselected="pooled"``, every query meets every coarse key.

    Where every key is selected and the backend is ``"auto"``, dense attention is computed and counted as Phase 2.

    Args:
        gpa: the module.
        query_shape: sizes of the axes of q between heads and channels; or a list of them, of structures that are
            packed; or a layout, such as one from :func:`~gpa_nd.causal`, or of a grid and global keys, as
            :meth:`.GPA.by_layout` takes it.
        key_shape: those of k and v; as of the queries by default. None with a layout, which has its own.
        channels: c, of queries and keys.
        value_channels: c_v; c by default.
        batch: B.
        heads: H.
        key_heads: H_k, where heads share keys (``enable_gqa``); H by default.
        dtype: of q, k and v.
        backward: whether the gradients of q, k and v are computed, too.
        device: type of the device on which backend "torch" runs; on a GPU its blocks are larger.

    Raises:
        TypeError: not a GPA, or an argument of the wrong type.
        ValueError: numbers below 1, heads that cannot share, or shapes that the operators cannot divide.

    Example:
        >>> import gpa_nd
        >>> from gpa_nd.diagnostics import cost
        >>> print(cost(gpa_nd.image(), (256, 256), channels=64))
        65,536 queries, each of which attends to 192 of 65,536 keys (0.29%)
                         multiply-adds    reads    writes
        Phase 1                 1.07 G   50 MiB  5.19 MiB
        Phase 2                 1.61 G  112 MiB    16 MiB
        together                2.68 G  162 MiB  21.2 MiB
        dense attention          550 G   48 MiB    16 MiB
        205 times fewer multiply-adds than dense attention
        memory at the peak, beside 48 MiB of q, k and v:
          22.5 MiB with backend "torch", 18.1 MiB with "triton"
          dense attention 16.2 MiB fused, 16 GiB with all scores
    """
    if not isinstance(gpa, GPA):
        more = ""
        if isinstance(gpa, TokenAttention):
            more = "; cost(attention.gpa, attention.gpa.layout(grid, global_keys=(leading, trailing)), channels=…) has "
            more += "what the tokens of its grid cost"
        raise TypeError(f"gpa: expected a GPA, got {type(gpa).__name__}{more}")
    value_channels = channels if value_channels is None else value_channels
    key_heads = heads if key_heads is None else key_heads
    for name, number in (
        ("channels", channels), ("value_channels", value_channels), ("batch", batch), ("heads", heads),
        ("key_heads", key_heads),
    ):  # fmt: skip
        check_int(name, number, at_least=1)
    if heads % key_heads or (key_heads != heads and not gpa.enable_gqa):
        expected = f"a divisor of {heads}" if gpa.enable_gqa else f"{heads}, as heads (enable_gqa is False)"
        raise ValueError(f"key_heads: expected {expected}, got {key_heads}")
    if dtype not in DTYPES:
        raise TypeError(f"dtype: expected float16, bfloat16, float32 or float64, got {dtype!r}")
    if not isinstance(device, str):
        raise TypeError(f"device: expected the type of one, such as 'cpu' or 'cuda', got {type(device).__name__}")
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: expected the type of one, such as 'cpu' or 'cuda', got {device!r}") from error
    layout = _layout(gpa, query_shape, key_shape)
    sizes = Sizes(batch, heads, key_heads, channels, value_channels, dtype, device.partition(":")[0], gpa.affinity)
    return cost_of_layout(layout, gpa, sizes, backward=backward)


def _layout(
    gpa: GPA, query_shape: Shape | Sequence[Shape] | Layout, key_shape: Shape | Sequence[Shape] | None
) -> Layout:
    if isinstance(query_shape, Layout):
        if key_shape is not None:
            raise ValueError(f"key_shape: expected None with a layout, which has the keys, too, got {key_shape}")
        return query_shape
    key_shape = query_shape if key_shape is None else key_shape
    if isinstance(query_shape, list):
        return gpa.packed_layout(query_shape, key_shape)  # type: ignore[arg-type]
    return gpa.layout(query_shape, key_shape)  # type: ignore[arg-type]


def cost_of_layout(layout: Layout, gpa: GPA, sizes: Sizes, *, backward: bool) -> Cost:
    """:func:`cost`, where the layout is there already."""
    rules = rules_of(check_kappa(gpa.kappa, layout), gpa.ranking, gpa.mass, gpa.affinity)
    weighed = rules if gpa.selection is None else (_among(rules[0], gpa.selection), *rules[1:])
    soft = gpa.selection is not None and not gpa.selection.hard
    visible, attended, rest = pairs(layout, (weighed if soft else rules)[0].kappa)
    n_q, n_k, c, c_v = (
        layout.query_groups.num_elements, layout.key_groups.num_elements, sizes.channels, sizes.value_channels
    )  # fmt: skip
    of_tokens = sizes.rows * n_q * c, sizes.key_rows * n_k * (c + c_v), sizes.rows * n_q * c_v
    tokens, out = (of_tokens[0] + of_tokens[1]) * sizes.given, of_tokens[2] * sizes.given
    dense = Work(round(sizes.rows * visible) * (c + c_v), tokens, out)
    dense_back = Work(round(sizes.rows * visible) * (3 * c + 2 * c_v), tokens + 2 * out, tokens)
    lse = sizes.rows * n_q * FLOAT
    pools, at_most = gpa.unselected == "pooled", soft or gpa.mass is not None
    if not n_q or not n_k:
        called = Call(Work(), Work(), Work(), out, out)
    else:
        is_dense = gpa.backend == "auto" and gpa.affinity == "dot" and sees_all(layout, rules)

        def hard(backward: bool) -> Call:
            if is_dense:
                held = out + lse + (tokens if backward else 0)
                return Call(Work(), dense, dense_back if backward else Work(), held, held)
            return call(layout, rules, sizes, weighs=False, pools=pools, backward=backward)

        if gpa.selection is None:
            called = hard(backward)
        else:
            called = call(layout, weighed, sizes, weighs=True, pools=pools, backward=backward)
            if gpa.selection.hard:
                called = called.lending_its_gradient(hard(backward=False), out)
        if is_dense and not soft:
            attended, rest = visible, 0.0
    return Cost(
        queries=n_q,
        keys=n_k,
        keys_per_query=attended / max(1, n_q),
        at_most=at_most,
        pooled_per_query=rest / max(1, n_q) if pools else 0.0,
        visible_per_query=visible / max(1, n_q),
        phase1=called.phase1,
        phase2=called.phase2,
        backward=called.backward if backward else None,
        dense=dense + dense_back if backward else dense,
        token_bytes=tokens,
        torch_bytes=called.torch,
        triton_bytes=called.triton,
        dense_bytes=out + lse + (tokens if backward else 0),
        scores_bytes=round(sizes.rows * n_q * n_k * sizes.given),
        left_out="" if gpa.selection is None else f"what {gpa.selection} makes of the scores of candidates",
    )


def _among(rule: Rule, selection: Selection) -> Rule:
    """How candidates are selected."""
    return replace(rule, kappa=selection.among(rule.kappa))


def short(number: int | float) -> str:
    """A number of operations with three digits."""
    for power, letter in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {letter}"
    return f"{number:.0f}"


def times(number: int | float) -> str:
    """How often, with three digits or all."""
    return f"{number:,.0f} times" if number >= 100 else f"{number:.3g} times"


def mebibytes(number: int | float) -> str:
    """Bytes with three digits."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 2**power:
            digits = f"{number / 2**power:.0f}" if number >= 100 * 2**power else f"{number / 2**power:.3g}"
            return f"{digits} {unit}"
    return f"{number:.0f} B"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
