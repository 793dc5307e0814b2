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
from gpa_nd.engine.phase1 import CANDIDATES, Keys, Phase1Steps, always_on, kept_keys, pool, select
from gpa_nd.engine.precision import wide
from gpa_nd.engine.rankings import as_long_as_keys
from gpa_nd.engine.rules import Rule
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
    twice = rule.ranking == "rerank" and (rule.kappa < share.most_visible or rule.mass is not None)
    longer = rule.ranking == "rms" or (twice and rule.affinity == "dot")
    coarse = CoarseKeys.of(groups, means, longer, rule.ranking == "moments", own.own, share.coarse_keys, peers)
    of_queries = share.query_groups
    q_low = pool(backend, of_queries.with_zeros(q), of_queries.groups)[:, :, : of_queries.own]
    candidates, spoilt = None, None
    if share.above is not None:
        above = share.above
        of_parents = select(
            *(above.queries.gather(q_low, peers), coarse.means, above.layout, rules[1:], coarse.added, backend)
        ).index_select(2, above.parents)
        spoilt = (of_parents == -2).any(-1, keepdim=True)
        candidates = torch.where(of_parents[..., None] >= 0, above.children[of_parents.clamp_min(0)], -1).flatten(-2)
    if twice:
        assert share.parts is not None
        q_parts = share.parts.look.rankers.rows(pool(backend, q, share.parts.of_queries), peers)
        at_first = q_parts if share.parts.at_first else share.look.rankers.rows(q_low, peers)
        look = share.parts.look if share.parts.at_first else share.look
        many = Rule(CANDIDATES * rule.kappa, rule.ranking, None, rule.affinity)
        first = _ranked(at_first, coarse, look.layout, candidates, many, backend)
        chosen = _ranked_again(q_parts, keys, first, share, share.parts, rule, peers)
    else:
        chosen = _ranked(share.look.rankers.rows(q_low, peers), coarse, share.look.layout, candidates, rule, backend)
    if spoilt is not None:
        chosen = chosen.masked_fill(spoilt, -2)
    always = share.look.layout.always
    return chosen if always is None else torch.cat([chosen, always_on(chosen, always)], dim=-1)


def _ranked(
    rows: Float[Tensor, "b h ranking c"],
    coarse: CoarseKeys,
    layout: Layout,
    candidates: Int[Tensor, "b h m r"] | None,
    rule: Rule,
    backend: Phase1Steps,
) -> Int[Tensor, "b h m kappa"]:
    """The best of pooled keys that are not always on."""
    if not len(layout.query_cells):
        return rows.new_zeros(*rows.shape[:2], 0, min(rule.kappa, len(layout.key_groups)), dtype=torch.int64)
    ranked = backend.rank(
        *(rows, coarse.compared, layout, rule.kappa + layout.contested, coarse.bias, candidates, coarse.spread),
        rule.mass is not None,
    )
    return kept_keys(*ranked, layout.rankers, layout, rule)


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
    groups, count, longer = keys.pooled(parts.of_keys), len(share.coarse_keys.owner), rule.affinity == "dot"
    k_parts = as_long_as_keys(groups.means(), groups.squares()) if longer and parts.pooled else groups.means()
    sent = [k_parts]
    if groups.coarse is not None:
        sent.append((groups.coarse.added + groups.sizes().log())[..., None])
    elif parts.uneven:
        sent.append(groups.sizes().log().expand(k_parts.shape[:3])[..., None])
    heads = k_parts.shape[0] * k_parts.shape[1]
    named = by_head(candidates, k_parts.shape[1], count)
    blocks = Blocks.of(named, heads, share, parts.keys, peers)
    rows, *added = blocks.rows(*sent)
    if not named.numel():
        return candidates[..., : rule.kappa]
    cells = repeated(parts.look.rankers.cells, q_parts.shape[0] * q_parts.shape[1], q_parts.shape[2])
    second = Layout(singles(cells.num_elements, q_parts.device), cells, blocks.groups)
    ranked = keys.backend.rank_by_members(
        *(q_parts.flatten(0, 2)[None, None], rows, second, rule.kappa, added[0][..., 0] if added else None),
        *(blocks.numbered(named), rule.mass is not None),
    )
    chosen = kept_keys(*ranked, second.rankers, None, rule).view(*candidates.shape[:3], -1)
    chosen = torch.where(chosen >= 0, blocks.names[chosen.clamp_min(0)] % count, chosen)
    return chosen.masked_fill((candidates == -2).any(-1, keepdim=True), -2)
