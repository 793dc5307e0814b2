"""How each level selects: the best κ, by which ranking, and what follows from the layout."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpa_nd.engine.choice import Affinity
from gpa_nd.engine.rankings import Ranking
from gpa_nd.layout import Layout

CANDIDATES = 3  # times κ, among which ``ranking="rerank"`` looks a second time


@dataclass(frozen=True)
class Rule:
    """How a level selects.

    Attributes:
        kappa: how many coarse keys a cell keeps, at most.
        ranking: by what they are ranked.
        mass: the part of a cell's attention that they shall hold together; None for all that κ allows.
        affinity: its kind.
    """

    kappa: int
    ranking: Ranking
    mass: float | None
    affinity: Affinity

    def looks_twice(self, most_visible: int) -> bool:
        """Whether candidates are ranked a second time, by their parts, where no cell may see more coarse keys."""
        return self.ranking == "rerank" and (self.kappa < most_visible or self.mass is not None)

    def lengthens(self, twice: bool) -> bool:
        """Whether means are compared as long as the root mean square of their keys."""
        return self.ranking == "rms" or (twice and self.affinity == "dot")

    def first_look(self) -> Rule:
        """How these candidates are chosen.

        Example:
            >>> Rule(2, "rerank", 0.5, "dot").first_look()
            Rule(kappa=6, ranking='rerank', mass=None, affinity='dot')
        """
        return replace(self, kappa=CANDIDATES * self.kappa, mass=None)


def rules_of(kappas: tuple[int, ...], ranking: Ranking, mass: float | None, affinity: Affinity) -> tuple[Rule, ...]:
    """How each level selects; a mass is for the finest one."""
    return tuple(Rule(kappa, ranking, None if level else mass, affinity) for level, kappa in enumerate(kappas))


def enough(rules: tuple[Rule, ...], layout: Layout) -> tuple[Rule, ...]:
    """κ of every level, but no more than any cell may select: structures side by side have many more together."""
    here = replace(rules[0], kappa=max(1, min(rules[0].kappa, layout.most_visible)))
    return (here,) if layout.coarser is None else (here, *enough(rules[1:], layout.coarser))


def sees_all(layout: Layout, rules: tuple[Rule, ...]) -> bool:
    """Whether every query attends to every key."""
    if layout.coarser is not None and not sees_all(layout.coarser, rules[1:]):
        return False
    everywhere = layout.members.covers and layout.key_ranges is None and layout.positions is None
    selects_all = rules[0].kappa >= len(layout.key_groups) and rules[0].mass is None
    return everywhere and layout.coarse_positions is None and selects_all
