"""torch.compile and torch.export of modules; those of the engine's operators are tested in tests/engine."""

import copy
import io

import torch

import gpa_nd
from gpa_nd import gpa_attention
from gpa_nd.nn import CopyAttention, GatedCoarse
from gpa_nd.selection import SoftTopK


def image(**settings):
    return gpa_nd.image(downsample=(3, 4), cells=(2, 3), kappa=2, **settings)


def audio():
    return gpa_nd.audio(downsample=4, cells=4, kappa=2)


def test_a_compiled_training_step_is_the_same_step():
    torch.compiler.reset()
    eager = CopyAttention(6, 5, 6, GatedCoarse(image(), 3), heads=2)
    compiled = copy.deepcopy(eager)
    compiled.compile(fullgraph=True, backend="aot_eager")
    for batch in (2, 3):  # the second batch size makes it dynamic
        target, source = torch.randn(batch, 6, 10, 13), torch.randn(batch, 5, 10, 13)
        for module in (eager, compiled):
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
            module.zero_grad()
            module(target, source).square().mean().backward()
            optimizer.step()
    for a, b in zip(eager.parameters(), compiled.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-6


def test_a_compiled_function_takes_a_new_layout_with_every_call():
    torch.compiler.reset()
    gpa, (q, k, v) = audio(), torch.randn(3, 1, 2, 47, 8)
    compiled = torch.compile(lambda *x: gpa_attention(*x, kappa=2), fullgraph=True, backend="eager")
    for first in range(5, 15):  # more of them than a function is compiled anew for
        layout = gpa.packed_layout(torch.tensor([0, first, 35, 47]))
        assert (compiled(q, k, v, layout) - gpa_attention(q, k, v, layout, kappa=2)).abs().max() < 1e-6


def test_packs_are_compiled_without_a_break_where_shapes_are_numbers():
    torch.compiler.reset()
    gpa, x = audio(), torch.randn(3, 1, 2, 47, 8)
    shapes = [(5,), (30,), (12,)]
    compiled = torch.compile(lambda q, k, v: gpa.packed(q, k, v, shapes), fullgraph=True, backend="eager")
    assert compiled(*x).equal(gpa.packed(*x, shapes))


def test_offsets_break_a_compiled_graph_but_not_the_answer():
    torch.compiler.reset()
    gpa, x = audio(), torch.randn(3, 1, 2, 47, 8)
    compiled = torch.compile(lambda *x: gpa.packed(*x) + 1, backend="eager")
    for first in (5, 9):
        offsets = torch.tensor([0, first, 35, 47])
        assert (compiled(*x, offsets) - 1 - gpa.packed(*x, offsets)).abs().max() < 1e-6


def test_exported_saved_and_loaded_it_gives_the_same_for_any_batch():
    module = CopyAttention(6, 5, 6, GatedCoarse(image(selection=SoftTopK(), unselected="pooled"), 3), heads=2)
    inputs, file = (torch.randn(2, 6, 10, 13), torch.randn(2, 5, 10, 13)), io.BytesIO()
    batch = {0: torch.export.Dim("batch")}
    torch.export.save(torch.export.export(module, inputs, dynamic_shapes=(batch, batch)), file)
    file.seek(0)
    run = torch.export.load(file).module()
    for some in (inputs, [torch.cat([x, x.flip(0), x[:1]]) for x in inputs]):
        assert (run(*some) - module(*some)).abs().max() < 1e-6
