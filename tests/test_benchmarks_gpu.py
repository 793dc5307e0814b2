"""The command for a GPU, as far as it runs without one: its checks in Triton's interpreter, and its tables."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gpa_nd
from benchmarks.clock import captured, in_turn, median_seconds
from benchmarks.files import write_json
from benchmarks.floor import Floor, Work, attended_pairs, backward_work, forward_work
from benchmarks.gpu import checks, report
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.rows import PIVOT, rows, tiny_rows, tokens
from benchmarks.memory import peak_bytes

ROOT = Path(__file__).parents[1]


def command(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    call = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(call, capture_output=True, text=True, cwd=ROOT, env=environment)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    run = command()
    assert run.returncode == 2
    assert "no GPU here" in run.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("arguments", "file"), [([], ""), (["--keep"], "mine.json")])
def test_what_a_user_has_tuned_is_chosen_only_to_keep_more(monkeypatch, arguments, file):
    monkeypatch.setenv("GPA_ND_TUNED", "mine.json")
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *arguments])
    assert main() == 2
    assert os.environ["GPA_ND_TUNED"] == file


def test_an_unknown_section_is_refused():
    run = command("--sections", "check,tiem")
    assert run.returncode == 2
    assert "tiem" in run.stderr


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    pytest.importorskip("triton", reason="the extra 'triton' is not installed")
    out = tmp_path_factory.mktemp("results")
    return command("--interpret", "--out", str(out)), out


def test_all_checks_pass_in_the_interpreter(interpreted):
    run, out = interpreted
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "all checks passed" in run.stdout
    found = json.loads((out / "interpreter.json").read_text())
    assert [entry["faults"] for entry in found["check"]] == [[]] * sum(len(row.dtypes) for row in tiny_rows())
    assert "### Is it right?" in (out / "interpreter.md").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["interpreter.json", "interpreter.md"]


def test_every_other_section_runs_and_keeps_what_the_checks_found(interpreted):
    _, out = interpreted
    arguments = ("--quick", "--only", "tiny image", "--sections", "build,time,tune", "--tune-minutes", "0.02")
    run = command("--interpret", "--out", str(out), *arguments)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    found = json.loads((out / "interpreter.json").read_text())
    assert set(found) == {"machine", "check", "build", "floor", "time", "tune"}
    (timed,) = found["time"]
    assert timed["fused"]["forward"] > 0
    assert timed["fused"]["both"] > timed["phase 2"]["forward"]
    assert {"pool", "select"} <= set(timed["kernels"])
    assert len(found["tune"][0]["phases"]) == 3
    assert "How much faster than dense attention" in run.stdout


def test_every_configuration_of_the_kernels_is_tuned():
    pytest.importorskip("triton", reason="the extra 'triton' is not installed")
    from benchmarks.gpu import tuning
    from gpa_nd.engine.fused import attention, selection  # noqa: F401  where it looks

    names = {choose.__name__ for choose in tuning.choosers()}
    assert names == {"tiles_for", "tile_of", "sum_tile_of", "pool_tile", "select_tile", "candidate_tile_of"}


def test_of_two_phases_that_tuned_the_same_the_narrower_decides():
    pytest.importorskip("triton", reason="the extra 'triton' is not installed")
    from benchmarks.gpu import tuning

    forward = {"phase": "phase 2, forward", "changed": {"tiles_for(forward)": {"rows": 32}}}
    both = {"phase": "phase 2, with backward", "changed": {"tiles_for(forward)": {"rows": 16}, "x": {"warps": 2}}}
    found = tuning.together([{"phases": [forward, both]}, {"error": "out of memory"}])
    assert found == {"tiles_for(forward)": {"rows": 32}, "x": {"warps": 2}}


class Wrong:
    """The torch backend in the place of the fused one, with an error of its own."""

    def __init__(self, monkeypatch, *, select=lambda chosen: chosen, out=lambda result: result):
        select_keys, attend = gpa_nd.select_keys, gpa_nd.attend

        def instead(backend):
            return "torch" if backend == "triton" else backend

        def wrong_select(*arguments, backend, **named):
            chosen = select_keys(*arguments, backend=instead(backend), **named)
            return select(chosen) if backend == "triton" else chosen

        def wrong_attend(*arguments, backend, **named):
            result = attend(*arguments, backend=instead(backend), **named)
            return out(result) if backend == "triton" else result

        monkeypatch.setattr(gpa_nd, "select_keys", wrong_select)
        monkeypatch.setattr(gpa_nd, "attend", wrong_attend)


def faults(repeats=1, name="tiny image"):
    row = next(row for row in tiny_rows() if row.name == name)
    return " ".join(checks.check(row, torch.float32, torch.device("cpu"), repeats)["faults"])


def test_a_right_backend_has_no_faults(monkeypatch):
    Wrong(monkeypatch)
    assert not faults()


def test_the_checks_find_a_wrong_result(monkeypatch):
    Wrong(monkeypatch, out=lambda result: result + 1e-4)
    assert faults().startswith("out: error 1.0")


def test_the_checks_find_a_wrong_gradient(monkeypatch):
    Wrong(monkeypatch, out=lambda result: result.detach() + 1.001 * (result - result.detach()))
    assert faults().startswith("dq: error")


def test_the_checks_find_the_wrong_keys(monkeypatch):
    Wrong(monkeypatch, select=lambda chosen: (chosen + 1) % 9)
    assert "better than one that was chosen" in faults()


@pytest.mark.parametrize(
    "select",
    [lambda chosen: chosen.masked_fill(chosen < 0, 5), lambda chosen: torch.full_like(chosen, -1)],
    ids=["too many", "too few"],
)
def test_the_checks_find_keys_that_a_cell_may_not_see_or_should(monkeypatch, select):
    Wrong(monkeypatch)
    assert not faults(name="tiny audio with key ranges")
    Wrong(monkeypatch, select=select)
    assert faults(name="tiny audio with key ranges").startswith("selection: a coarse key")


def test_the_checks_find_a_key_chosen_twice(monkeypatch):
    Wrong(monkeypatch, select=lambda chosen: torch.where(torch.arange(3) == 1, chosen[..., :1], chosen))
    assert "chosen twice" in faults()


def test_the_checks_find_a_result_that_does_not_repeat(monkeypatch):
    calls = iter(range(100))
    Wrong(monkeypatch, out=lambda result: result + 1e-9 * next(calls))
    assert "not bit for bit" in faults(repeats=2)


def test_the_checks_find_memory_that_was_never_written(monkeypatch):
    Wrong(monkeypatch, out=lambda result: torch.cat([result[:, :, :-1], torch.empty_like(result[:, :, -1:])], 2))
    assert "out: error nan" in faults(repeats=0)


def test_rows_have_distinct_names_and_tokens_of_their_shape():
    assert len({row.name for row in rows()}) == len(rows())
    for row in tiny_rows():
        data = tokens(row, torch.float32, torch.device("cpu"))
        n = data.layout.query_groups.num_elements
        assert data.q.shape == (1, row.heads, n, row.c)
        assert data.v.shape == (1, row.key_heads, n, row.c_v)
        assert data.q.std() > 0.5


def test_one_key_for_all_is_chosen_by_every_cell():
    row = next(row for row in tiny_rows() if row.extra == "popular")
    data = tokens(row, torch.float32, torch.device("cpu"))
    chosen = gpa_nd.select_keys(data.q, data.k, data.layout, kappa=row.kappa, backend="reference")
    assert (chosen == len(data.layout.key_groups) // 2).any(-1).all()


def test_the_floor_counts_both_phases():
    layout = gpa_nd.audio(downsample=2, cells=2, kappa=1).layout((8,), (8,))
    q, k, v = torch.zeros(1, 1, 8, 3), torch.zeros(1, 1, 8, 3), torch.zeros(1, 1, 8, 5)
    relevant = torch.tensor([[[[0, 1], [2, -1]]]])  # cells of 4 queries, groups of 2 keys: 4 · 4 + 4 · 2 pairs
    assert attended_pairs(layout, relevant) == 24
    forward = forward_work(q, k, v, layout, relevant)
    assert forward.operations == 2 * 24 * (3 + 5) + 2 * 4 * 4 * 3
    assert forward.bytes == 4 * (3 * 8 + 3 * 8 + 5 * 8 + 5 * 8 + 2 * (4 + 4) * 3) + 8 * 4
    backward = backward_work(q, k, v, layout, relevant)
    assert backward.operations == 2 * 24 * (3 * 3 + 2 * 5)
    assert Floor(100.0, 10.0).seconds(Work(200.0, 5.0)) == 2.5


def test_time_and_memory_are_measured_here():
    device = torch.device("cpu")
    assert 0 < median_seconds(lambda: torch.ones(10), device, rounds=3) < 1
    assert set(in_turn({"a": lambda: None, "b": lambda: None}, device, rounds=4)) == {"a", "b"}
    if Path("/proc/self/statm").exists():
        assert 30 * 2**20 < peak_bytes(lambda: torch.ones(2**23), device) < 60 * 2**20
    with pytest.raises(ValueError, match="graphs"):
        captured(lambda: None, device)


def test_what_failed_is_a_dash_in_the_tables_and_a_problem_at_the_end():
    broken = {"row": PIVOT, "dtype": "bfloat16", "error": "OutOfMemoryError: no"}
    half = {
        "row": PIVOT,
        "dtype": "float32",
        "floor": {"forward": 1e-4},
        "fused": {"forward": 2e-4, "both": {"error": "RuntimeError: spilled"}},
        "dense": {"FLASH_ATTENTION": {"forward": {"error": "no float32"}}, "MATH": {"forward": 4e-3}},
    }
    found = {"check": [broken], "time": [half]}
    text = "\n".join(table.text() for table in report.tables(found))
    assert "0.2 ms" in text
    assert "4 ms math" in text
    assert "20×" in text
    assert report.problems(found, ["check", "time"]) == [
        f"check: {PIVOT}, bfloat16: OutOfMemoryError: no",
        f"time: {PIVOT}, float32: RuntimeError: spilled",
    ]
    assert report.problems({"check": [broken | {"error": "x"}]}, ["time"]) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "found.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [x.name for x in path.parent.iterdir()] == ["found.json"]
