"""Errors that no test elsewhere provokes, each with its type and the message that names what is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import gpa_nd
from gpa_nd import GPA, Layout, Partition, attend, gpa_attention, select_keys
from gpa_nd.always import GraphNeighbourhood, GridNeighbourhood
from gpa_nd.diagnostics import cost
from gpa_nd.nn import CopyAttention
from gpa_nd.ops import GraphDownsampler, GridDownsampler
from gpa_nd.partitioners import GraphPartitioner, GridPartitioner

PAIRS = Partition.from_labels(torch.tensor([0, 0, 1, 1]))
SOME = Partition.from_labels(torch.tensor([0, 1]), torch.tensor([0, 3]))
LAYOUT = gpa_nd.audio(2, 2, 1).layout((8,), (8,))
TOKENS = torch.zeros(3, 1, 2, 8, 4)
Q, K, V = TOKENS
MASK, BIAS = torch.ones(1, 8, dtype=torch.bool), torch.zeros(1, 2, 8)
IMAGE = torch.zeros(1, 3, 4, 4)
COPY = CopyAttention(3, 3, 3, gpa_nd.image(2, 2, 1))
RELEVANT = select_keys(Q, K, LAYOUT, kappa=1)
CAUSAL = gpa_nd.audio(2, 2, 1, causal=True).layout((8,), (8,))


def graph_attends_to_more_nodes() -> None:
    near = GraphNeighbourhood(torch.tensor([[0], [1]]))
    keys = GraphDownsampler(torch.tensor([0, 0, 1]))
    gpa = GPA(
        GraphPartitioner(torch.tensor([0])),
        GraphDownsampler(torch.tensor([0, 0])),
        key_downsampler=keys,
        kappa=1,
        always=[near],
    )
    gpa.layout((2,), (3,))


def grid_attends_to_another_grid() -> None:
    gpa = GPA(
        GridPartitioner(2),
        GridDownsampler(2),
        key_downsampler=GridDownsampler((2,)),
        kappa=1,
        always=[GridNeighbourhood(1)],
    )
    gpa.layout((4, 4), (8,))


CASES = [
    # a partition
    (lambda: Partition.from_labels(torch.zeros(2, 2, dtype=torch.int64)), ValueError, r"labels: expected shape \(n,\)"),
    (lambda: Partition.from_labels(torch.zeros(2)), TypeError, "labels: expected an int64 or int32 tensor, got torch"),
    (lambda: Partition.from_labels([0, 1]), TypeError, "labels: expected an int64 or int32 tensor, got list"),
    (lambda: Partition.from_labels(torch.tensor([0, -1])), ValueError, "labels: expected cell numbers from 0 on, got"),
    (lambda: Partition.from_labels(torch.tensor([0, 2, 2])), ValueError, "labels: expected every cell .* cell 1 has"),
    (lambda: Partition.from_labels(torch.tensor([0, 7])), ValueError, "labels: 2 elements cannot fill 8 cells"),
    (
        lambda: Partition.from_labels(torch.tensor([0, 1]), torch.tensor([3, 3])),
        ValueError,
        "elements: expected distinct, ascending numbers from 0 on",
    ),
    (
        lambda: Partition.from_labels(torch.tensor([0, 1]), torch.tensor([-1, 3])),
        ValueError,
        "elements: expected distinct, ascending numbers from 0 on",
    ),
    (lambda: Partition.concat([]), ValueError, "parts: expected at least one partition, got none"),
    (
        lambda: Partition.concat([PAIRS, PAIRS.to("meta")]),
        ValueError,
        "parts: expected all of them on one device, got cpu and meta",
    ),
    (lambda: Partition.from_labels(PAIRS.labels[:0]).join([]), ValueError, "cells: expected at least one; the"),
    (lambda: SOME.mean(torch.zeros(4, 1)), ValueError, "mean and split: this partition leaves elements out"),
    (lambda: PAIRS.mean("x"), TypeError, "x: expected a .*got str"),
    # a layout
    (lambda: replace(LAYOUT, coarser=PAIRS), TypeError, "coarser: expected a Layout, got Partition"),
    (lambda: Layout.concat([LAYOUT, CAUSAL]), ValueError, "layouts: expected the same causal axes in all, got 0 and 1"),
    (
        lambda: gpa_nd.causal(LAYOUT, torch.arange(8), torch.arange(8), before=[torch.arange(5)]),
        ValueError,
        r"before: expected shape \(2,\), one earlier cell for each, got \(5,\)",
    ),
    # what is always on
    (lambda: GridNeighbourhood("2"), TypeError, "radius: expected an int or a tuple of ints, got '2'"),
    (lambda: GridNeighbourhood(True), TypeError, "radius: expected an int or a tuple of ints, got True"),
    (lambda: GridNeighbourhood(-1), ValueError, "radius: expected numbers of at least 0, got -1"),
    (lambda: GridNeighbourhood(()), ValueError, r"radius: expected numbers of at least 0, got \(\)"),
    (grid_attends_to_another_grid, ValueError, r"always: a grid neighbourhood expects .* as many axes, got shapes"),
    (lambda: GraphNeighbourhood(torch.zeros(3, dtype=torch.int64)), ValueError, r"edge_index: expected shape \(2, e\)"),
    (lambda: GraphNeighbourhood(torch.zeros(2, 3)), TypeError, "edge_index: expected an int64 or int32 tensor, got"),
    (graph_attends_to_more_nodes, ValueError, "always: a graph neighbourhood expects .* the same nodes, got 2 and 3"),
    # modules
    (lambda: COPY(IMAGE, IMAGE.double()), TypeError, "source: expected torch.float32 as target has, got torch.float64"),
    (lambda: COPY(IMAGE, IMAGE.to("meta")), ValueError, "source: expected it on cpu, where target is, got meta"),
    (lambda: cost("gpa", (8,), channels=4), TypeError, "gpa: expected a GPA, got str"),
    # the functions
    (lambda: gpa_attention(Q, K.int(), V, LAYOUT, kappa=1), TypeError, "k: expected float16, bfloat16, float32 or"),
    (lambda: gpa_attention(Q, K, None, LAYOUT, kappa=1), TypeError, "v: expected a .*got NoneType"),
    (lambda: gpa_attention(Q, K[..., :3], V, LAYOUT, kappa=1), ValueError, "k: expected 4 channels as q has, got 3"),
    (lambda: gpa_attention(Q[..., :0], K, V, LAYOUT, kappa=1), ValueError, "q: expected at least one channel, got"),
    (lambda: gpa_attention(Q, K, V, LAYOUT, kappa=(1, 1)), ValueError, r"kappa: expected one .* of 1 levels, got"),
    (lambda: gpa_attention(Q, K, V, LAYOUT, kappa=1, scale=torch.inf), ValueError, "scale: expected a finite number"),
    (
        lambda: gpa_attention(Q, K, V, LAYOUT, kappa=1, key_mask=MASK[:, 1:]),
        ValueError,
        r"key_mask: expected shape \(1, 8\), got \(1, 7\)",
    ),
    (
        lambda: gpa_attention(Q, K, V, LAYOUT, kappa=1, key_mask=MASK.to("meta")),
        ValueError,
        "key_mask: expected it on cpu, where k is, got meta",
    ),
    (
        lambda: select_keys(Q, K, LAYOUT, kappa=1, key_bias=BIAS.long()),
        TypeError,
        "key_bias: expected a floating point tensor, got torch.int64",
    ),
    (
        lambda: attend(Q, K, V, LAYOUT, RELEVANT, key_bias=BIAS[:, :1]),
        ValueError,
        r"key_bias: expected shape \(1, 2, 8\), got \(1, 1, 8\)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), CASES)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
