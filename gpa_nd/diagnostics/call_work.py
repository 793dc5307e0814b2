"""What a whole call computes and moves, and what each backend holds: the phases, and what stands between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpa_nd.diagnostics import blocked_work, fused_memory, ranking_work
from gpa_nd.diagnostics.blocked_work import Phase, Sizes, selected
from gpa_nd.diagnostics.fill_work import Filling
from gpa_nd.diagnostics.ranking_work import Steps
from gpa_nd.diagnostics.weighing_work import Weighing
from gpa_nd.diagnostics.work import Work
from gpa_nd.engine.rules import Rule, enough
from gpa_nd.layout import Layout


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        phase1: finding and weighing relevant keys.
        phase2: attending to them, and to pooled ones.
        backward: the gradients, or nothing.
        torch: bytes that backend "torch" holds at the peak.
        triton: bytes that backend "triton" holds.
    """

    phase1: Work
    phase2: Work
    backward: Work
    torch: int
    triton: int

    def lending_its_gradient(self, other: Call, out: int) -> Call:
        """Both, of which the other one has the result, so many bytes that are copied, and this one the gradient."""
        return Call(
            self.phase1 + other.phase1,
            self.phase2 + other.phase2 + Work(0, out, out),
            self.backward,
            max(self.torch, other.torch) + out,
            max(self.triton, other.triton) + out,
        )


def call(layout: Layout, rules: tuple[Rule, ...], sizes: Sizes, *, weighs: bool, pools: bool, backward: bool) -> Call:
    """A call without dense attention.

    Args:
        layout: who belongs to whom.
        rules: how each level selects; where a selection learns, how it selects candidates.
        sizes: the tensors.
        weighs: whether candidates are weighed.
        pools: whether unselected coarse keys stand in the softmax.
        backward: whether there are gradients.
    """
    rules = enough(rules, layout)
    chosen, nothing = selected(layout, rules[0].kappa), Phase(Work(), 0, 0)
    weighed = weighed_back = filled = filled_back = nothing
    if weighs:
        weighing = Weighing(layout, min(rules[0].kappa, len(layout.key_groups)), sizes)
        weighed = weighing.forward(backward=backward)
        weighed_back = weighing.gradient() if backward else nothing
    if pools:
        filling = Filling(layout, chosen, sizes)
        filled = filling.forward(backward=backward)
        filled_back = filling.gradient() if backward else nothing
    first = ranking_work.phase1(layout, rules, sizes)
    second = blocked_work.phase2(layout, chosen, sizes, logits=weighs)
    third = blocked_work.backward(layout, chosen, sizes, logits=weighs) if backward else nothing
    fused = (
        first if rules[0].ranking == "moments" else fused_memory.phase1(layout, rules, sizes),  # which it has not
        fused_memory.phase2(layout, chosen, sizes),
        fused_memory.backward(layout, chosen, sizes) if backward else nothing,
    )
    torch, triton = (
        _peak((one, weighed, two, filled), (filled_back, three, weighed_back) if backward else ())
        for one, two, three in ((first, second, third), fused)
    )
    lse = sizes.rows * layout.query_groups.num_elements * sizes.wide if pools else 0
    return Call(
        first.work + weighed.work,
        second.work + filled.work + Work(0, 0, lse),
        third.work + weighed_back.work + filled_back.work,
        torch,
        triton,
    )


def _peak(forward: Sequence[Phase], gradients: Sequence[Phase]) -> int:
    """The most bytes that are held while steps follow one another, and then their gradients, the last one's first."""
    steps = Steps()
    for phase in forward:
        steps.keep(phase)
    for place, phase in enumerate(gradients):
        steps.keep(phase)
        if place == 0:
            steps.kept -= forward[-1].returned
    return steps.peak
