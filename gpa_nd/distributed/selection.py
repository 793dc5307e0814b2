"""Phase 1 for the cells of one process: coarse keys of all are gathered, and ranked as one process ranks them."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpa_nd.distributed.blocks import Blocks, by_head, repeated
from gpa_nd.distributed.coarse import CoarseKeys
from gpa_nd.distributed.peers import Peers
from gpa_nd.distributed.share import Parts, Share
from gpa_nd.engine.bias import hide
from gpa_nd.engine.compared import ranked_again
from gpa_nd.engine.phase1 import Keys, children_of, pool, select, with_always
from gpa_nd.engine.precision import wide
from gpa_nd.engine.rankings import as_long_as_keys
from gpa_nd.engine.rules import Rule
from gpa_nd.engine.steps import Phase1Steps
from gpa_nd.layout import Layout, singles


def select_keys(
    q: Float[Tensor, "b h n_q c"],
    k: Float[Tensor, "b h_k n_k c"],
    bias: Float[Tensor, "b h_k n_k"] | None,
    share: Share,
    rules: tuple[Rule, ...],
    backend: Phase1Steps,
    peers: Peers,
) -> Int[Tensor, "b h m chosen"]:
    """The relevant coarse keys of one's own cells, by their numbers in the layout, as :func:`.phase1.select` has them.

    Args:
        q: one's own queries.
        k: one's own keys.
        bias: what is added to the affinities of one's own keys, −∞ where one is masked.
        share: what this process holds.
        rules: how each level selects, finest first.
        backend: what pools and ranks.
        peers: the processes, all of which call this together.
    """
    q, k, bias = q.detach(), k.detach(), None if bias is None else bias.detach()
    keys, rule, own = Keys(hide(k, bias), bias, backend), rules[0], share.key_groups
    padded = Keys(own.with_zeros(keys.k), None if bias is None else own.with_zeros(bias), backend)
    groups = padded.pooled(own.groups)
    pooled = groups
    if rule.ranking == "mean" and share.above is None:  # which rounds means over visible keys only once
        pooled = replace(groups, keys=replace(padded, k=padded.k.to(wide(k.dtype))))
    means = pooled.means().to(k.dtype)
    twice = rule.looks_twice(share.most_visible)
    moments = rule.ranking == "moments"
    coarse = CoarseKeys.of(groups, means, rule.lengthens(twice), moments, own.own, share.coarse_keys, peers)
    of_queries = share.query_groups
    q_low = pool(backend, of_queries.with_zeros(q), of_queries.groups)[:, :, : of_queries.own]
    candidates, spoilt = None, None
    if share.above is not None:
        above = share.above
        of_parents = select(
            above.queries.gather(q_low, peers), coarse.means, above.layout, rules[1:], coarse.compared.added, backend
        )
        candidates, spoilt = children_of(of_parents.index_select(2, above.parents), above.children)
    if twice:
        assert share.parts is not None
        q_parts = share.parts.look.rankers.rows(pool(backend, q, share.parts.of_queries), peers)
        at_first = q_parts if share.parts.at_first else share.look.rankers.rows(q_low, peers)
        look = share.parts.look if share.parts.at_first else share.look
        first = _best(at_first, coarse, look.layout, candidates, rule.first_look(), backend)
        chosen = _ranked_again(q_parts, keys, first, share, share.parts, rule, peers)
    else:
        chosen = _best(share.look.rankers.rows(q_low, peers), coarse, share.look.layout, candidates, rule, backend)
    if spoilt is not None:
        chosen = chosen.masked_fill(spoilt, -2)
    return with_always(chosen, share.look.layout)


def _best(
    rows: Float[Tensor, "b h ranking c"],
    coarse: CoarseKeys,
    layout: Layout,
    candidates: Int[Tensor, "b h m r"] | None,
    rule: Rule,
    backend: Phase1Steps,
) -> Int[Tensor, "b h m kappa"]:
    """The best of pooled keys that are not always on, where a process may have no cell."""
    if not len(layout.query_cells):
        return rows.new_zeros(*rows.shape[:2], 0, min(rule.kappa, len(layout.key_groups)), dtype=torch.int64)
    return coarse.compared.best(rows, layout, layout, candidates, rule, backend)


def _ranked_again(
    q_parts: Float[Tensor, "b h ranking c"],
    keys: Keys,
    candidates: Int[Tensor, "b h m r"],
    share: Share,
    parts: Parts,
    rule: Rule,
    peers: Peers,
) -> Int[Tensor, "b h m kappa"]:
    """The best of candidates, by parts of queries against parts of keys, which are fetched where others hold them."""
    groups, count = keys.pooled(parts.of_keys), len(share.coarse_keys.owner)
    k_parts = groups.means()
    if rule.affinity == "dot" and parts.pooled:
        k_parts = as_long_as_keys(k_parts, groups.squares())
    added = groups.counted(parts.uneven)
    heads = k_parts.shape[0] * k_parts.shape[1]
    named = by_head(candidates, k_parts.shape[1], count)
    blocks = Blocks.of(named, heads, share, parts.keys, peers)
    rows, *of_rows = blocks.rows(k_parts, *([] if added is None else [added[..., None]]))
    if not named.numel():
        return candidates[..., : rule.kappa]
    cells = repeated(parts.look.rankers.cells, q_parts.shape[0] * q_parts.shape[1], q_parts.shape[2])
    chosen = ranked_again(
        q_parts.flatten(0, 2)[None, None],
        rows,
        of_rows[0][..., 0] if of_rows else None,
        Layout(singles(cells.num_elements, q_parts.device), cells, blocks.groups),
        blocks.numbered(named),
        rule,
        keys.backend,
    ).view(*candidates.shape[:3], -1)
    return torch.where(chosen >= 0, blocks.names[chosen.clamp_min(0)] % count, chosen)
