"""One structure over four processes is that structure in one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import gpa_nd
from examples import context_parallel
from gpa_nd import GPA
from gpa_nd.distributed import ContextParallel
from gpa_nd.selection import SoftTopK
from tests.distributed.processes import CASES, CLAIMS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What four processes found, of all cases and claims."""
    folder = tmp_path_factory.mktemp("found")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.distributed.processes", str(folder)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(4)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_processes_give_the_answer_the_selection_and_the_gradients_of_one(found, case):
    told = [each[case.name] for each in found if case.name in each]
    assert len(told) == case.processes
    assert not any(told), "\n".join(told)


@pytest.mark.parametrize("claim", CLAIMS)
def test_all_processes_find_that(found, claim):
    assert not any(each[claim] for each in found), "\n".join(each[claim] for each in found)


@pytest.fixture
def alone():
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_bad_input_is_named(alone):
    gpa = gpa_nd.audio(downsample=4, cells=4, kappa=2)
    with pytest.raises(TypeError, match="gpa: expected a GPA, got Linear"):
        ContextParallel(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="group: expected a ProcessGroup, a DeviceMesh or None, got int"):
        ContextParallel(gpa, 4)
    with pytest.raises(ValueError, match=r"group: expected a mesh with one dimension, such as mesh\['cp'\]"):
        ContextParallel(gpa, dist.init_device_mesh("cpu", (1, 1)))
    with pytest.raises(ValueError, match="group: expected one that this process is in"):
        ContextParallel(gpa, dist.GroupMember.NON_GROUP_MEMBER)
    with pytest.raises(NotImplementedError, match=r"selection: expected None, .*got SoftTopK\("):
        ContextParallel(gpa_nd.audio(selection=SoftTopK()))
    with pytest.raises(NotImplementedError, match=r"unselected: expected 'ignored', .*got 'pooled'"):
        ContextParallel(gpa_nd.audio(unselected="pooled"))
    attention, x = ContextParallel(gpa), torch.randn(1, 1, 40, 4)
    with pytest.raises(ValueError, match="x: expected 30 rows along axis 2, got 40"):
        attention.shard(x, rows=attention.shards((30,)).queries)
    nested = torch.nested.nested_tensor([torch.randn(5, 1, 4)], layout=torch.jagged).transpose(1, 2)
    with pytest.raises(ValueError, match="q: expected a tensor of one shape, got a nested one"):
        attention(nested, nested, nested)
    with pytest.raises(ValueError, match="q: expected at most 16 axes of a grid, got 17"):
        attention(*[torch.zeros(1, 1, *[1] * 17, 4)] * 3)
    with pytest.raises(ValueError, match="factor: expected"):
        ContextParallel(gpa_nd.image())(x, x, x)


def test_bad_input_second_derivatives_are_refused(alone):
    attention = ContextParallel(gpa_nd.audio(downsample=4, cells=4, kappa=2, backend="reference"))
    x = torch.randn(1, 1, 40, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(attention(x, x, x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # the compiler's
def test_compiled_programs_break_their_graph_there(alone):
    attention = ContextParallel(gpa_nd.audio(downsample=4, cells=4, kappa=2))
    x = torch.randn(1, 1, 40, 4, requires_grad=True)

    def layer(x):
        return attention(2 * x, x, x) + 1

    out = torch.compile(layer, backend="eager")(x)
    assert out.equal(layer(x))
    assert out.requires_grad


def test_the_example_learns(monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(sys, "argv", ["context_parallel", "--length", "2048", "--steps", "5"])
    context_parallel.main()
    *steps, last = capsys.readouterr().out.splitlines()
    losses = [float(line.split()[-1]) for line in steps]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 5
    assert last == "came to this process: 0% of all keys and values"


def test_what_inference_made_serves_training(alone):
    attention = ContextParallel(gpa_nd.audio(downsample=4, cells=4, kappa=2, causal=True))
    x = torch.randn(1, 2, 40, 4)
    with torch.inference_mode():
        out = attention(x, x, x)
    x.requires_grad_()
    again = attention(x, x, x)
    again.sum().backward()
    assert again.equal(out)
    assert x.grad.isfinite().all()


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")  # numpy, under the interpreter
def test_the_fused_backend_takes_blocks_of_all_heads(alone):
    gpa = gpa_nd.audio(downsample=4, cells=2, kappa=1, enable_gqa=True, backend="triton")
    q, k, v = torch.randn(1, 2, 11, 4), torch.randn(1, 1, 11, 4), torch.randn(1, 1, 11, 4)
    torch.testing.assert_close(ContextParallel(gpa)(q, k, v), gpa(q, k, v), rtol=1e-5, atol=1e-5)


def test_without_a_group_the_error_says_what_to_call():
    with pytest.raises(ValueError, match=r"group: expected torch\.distributed\.init_process_group to be called first"):
        ContextParallel(gpa_nd.audio())


def test_the_layout_of_a_shape_is_made_once(alone, monkeypatch):
    made = []
    monkeypatch.setattr(GPA, "layout", lambda gpa, *shapes, of=GPA.layout: made.append(shapes) or of(gpa, *shapes))
    attention = ContextParallel(gpa_nd.audio(downsample=4, cells=4, kappa=2))
    x = attention.shard(torch.randn(1, 1, 40, 4))
    attention.unshard(attention(x, x, x))
    assert made == [((40,), (40,))]


def test_what_is_kept_for_shapes_is_bounded(alone):
    attention = ContextParallel(gpa_nd.audio(downsample=4, cells=4, kappa=2))
    for n in range(40, 60):
        x = torch.randn(1, 1, n, 4)
        attention(x, x, x)
    assert len(attention._shares) <= 8
    assert len(attention._plans) <= 8
    assert len(attention._same) <= 8
    assert not vars(attention.gpa._kept)
