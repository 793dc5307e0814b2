"""The benchmarks without a GPU, as far as a few seconds can tell: they run, and their tables hold finite numbers."""

import argparse
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import attention, contestants, geometries
from benchmarks.clock import medians
from benchmarks.contestants import Skipped
from benchmarks.fresh import in_fresh_process
from benchmarks.memory import resident_extra

ROOT = Path(__file__).parents[1]
NEEDS_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read as Linux tells it")


def command(script, *arguments):
    call = [sys.executable, "-m", f"benchmarks.{script}", *arguments]
    return subprocess.run(call, capture_output=True, text=True, cwd=ROOT)


def quick(script, out, sections):
    run = command(script, "--quick", "--rounds", "2", "--out", str(out))
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    found = json.loads((out / f"{script}.json").read_text())
    assert list(found) == ["machine", *sections]
    assert all(found[section] for section in sections)
    assert all(math.isfinite(number) for number in numbers(found))
    markdown = (out / f"{script}.md").read_text()
    rows = re.split(r"^### .*$", markdown, flags=re.MULTILINE)[1:]
    assert len(rows) >= len(sections)
    assert all(table.count("\n|") > 2 for table in rows)  # a head, its rule and at least one row
    assert not re.search(r"\b(nan|inf)\b", markdown)
    return found


def numbers(value):
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield value


@NEEDS_LINUX
def test_attention_answers_every_question(tmp_path):
    sections = ["pivot", "bfloat16", "exponent", "memory", "geometries", "crossover"]
    found = quick("attention", tmp_path, sections)
    for entry in found["pivot"][:2]:
        assert {"GPA", "dense", "reference backend"} <= set(entry["seconds"])
        assert set(entry["seconds"]) | set(entry["skipped"]) == {someone.name for someone in contestants.EVERYBODY}
    assert {"GPA 1-D", "GPA 2-D", "GPA 3-D", "GPA graph", "dense"} <= set(found["crossover"][0]["forward"]["seconds"])


def test_few_elements_are_timed_on_every_structure_beside_dense_attention(tmp_path):
    for entry in quick("few", tmp_path, ["few"])["few"]:
        for part in ("forward", "forward + backward"):
            assert set(entry[part]["seconds"]) == {"dense", "audio", "image", "video", "graph"}
            assert all(seconds > 0 for seconds in entry[part]["seconds"].values())


@NEEDS_LINUX
def test_quality_covers_photographs_video_and_audio(tmp_path):
    pytest.importorskip("skimage", reason="the extra 'bench' is not installed")
    pytest.importorskip("matplotlib", reason="the extra 'bench' is not installed")
    found = quick("quality", tmp_path, ["photographs", "video", "audio"])
    for section in ("photographs", "video", "audio"):
        for row in (row for entry in found[section] for row in entry["rows"] if row["family"] == "GPA"):
            assert 0 < row["captured"] <= row["best"] + 1e-4 <= 1.001
    assert (tmp_path / "quality.png").stat().st_size > 10_000


def test_rankings_capture_no_more_than_the_best_choice(tmp_path):
    pytest.importorskip("skimage", reason="the extra 'bench' is not installed")
    found = quick("rankings", tmp_path, ["photographs", "video", "audio"])
    for entry in (entry for section in ("photographs", "video", "audio") for entry in found[section]):
        assert all(0 < entry[ranking] <= 1 + 1e-6 for ranking in ("mean", "rms", "moments", "rerank"))
        assert entry["rerank"] > entry["mean"] - 0.02


@NEEDS_LINUX
def test_levels_are_timed_on_every_structure(tmp_path):
    found = quick("levels", tmp_path, ["levels"])["levels"]
    assert len(found) == 8
    assert all(entry["seconds"] > 0 and entry["resident"] > 2**20 for entry in found)
    assert "With which power" in (tmp_path / "levels.md").read_text()


@NEEDS_LINUX
def test_ragged_times_one_call_against_a_loop(tmp_path):
    found = quick("ragged", tmp_path, ["ragged"])["ragged"]
    assert [entry["structures"] for entry in found] == [8, 9, 8, 8]
    assert all({"one call", "a loop"} <= set(entry[part]) for entry in found for part in ("forward", "both", "layout"))


@NEEDS_LINUX
def test_context_parallel_counts_what_travels(tmp_path):
    for row in quick("context_parallel", tmp_path, ["context_parallel"])["context_parallel"]:
        assert 0 < row["coarse"] < row["blocks"] < row["everything"]
        assert row["apart"] < 1e-4
        assert all(row[name] > 0 for name in ("forward", "both", "forward of one", "both of one"))


@NEEDS_LINUX
def test_graph_measures_every_stage(tmp_path):
    (found,) = quick("graph", tmp_path, ["graph"])["graph"]
    assert {"groups", "cells", "layout", "forward, the first time", "backward, the first time"} <= set(found["stages"])
    assert found["largest group"] <= 64


@NEEDS_LINUX
def test_cost_is_found_as_it_was_expected(tmp_path):
    for row in quick("cost", tmp_path, ["cost"])["cost"]:
        assert row["found"].keys() == row["expected"].keys()
        for kind in ("multiply-adds", "reads", "writes", "tensors"):
            assert row["found"][kind] == pytest.approx(row["expected"][kind], rel=0.2)


def test_selection_times_every_way_beside_hard_selection(tmp_path):
    for entry in quick("selection", tmp_path, ["selection"])["selection"]:
        assert len(entry["seconds"]) == 7
        assert all(seconds > 0 for seconds in entry["seconds"].values())


def test_an_unknown_section_is_refused():
    run = command("attention", "--only", "pivto")
    assert run.returncode == 1
    assert "pivto" in run.stderr


def test_whoever_can_do_nothing_is_named_below_the_table_alone():
    options = argparse.Namespace(device=torch.device("cpu"), quick=True, channels=64)
    times = {"seconds": {"GPA": 1.0, "dense": 2.0}, "skipped": {"native sparse": "too large"}, "floor": 0.5}
    memory = {"bytes": {"GPA": 2**20, "Performer": 2**20}, "skipped": {}}
    (table,) = attention.Benchmark(options).pivot_tables([times, times, memory])
    assert [row[0] for row in table.rows] == ["GPA", "dense", "Performer"]
    assert table.note.endswith("native sparse: too large.")


def test_an_exponent_is_found():
    assert attention.exponent([(n, 3 * n**1.25) for n in (10, 100, 1000)]) == pytest.approx(1.25)


def test_the_size_from_which_gpa_wins_is_the_one_after_the_last_at_which_it_loses():
    dense, gpa = (1, 5, 9, 20), (2, 4, 10, 10)
    found = [{"elements": 10**n, "forward": {"seconds": {"dense": dense[n], "GPA": gpa[n]}}} for n in range(len(dense))]
    assert attention.wins_from(found, "forward", "GPA") == "1,000"
    assert attention.wins_from(found[:3], "forward", "GPA") is None
    unknown = [*found, {"elements": 10**4, "forward": {"seconds": {"GPA": 1}}}]
    assert attention.wins_from(unknown, "forward", "GPA") == "1,000"


@pytest.mark.parametrize("n", [4**e for e in range(5, 9)])
def test_all_geometries_of_a_size_have_as_many_elements(n):
    made = geometries.of_size(n)
    assert [geometry.kind for geometry in made] == ["1-D", "2-D", "3-D", "graph"]
    assert {geometry.elements for geometry in made} == {n}
    layout = geometries.layout(made[1], torch.device("cpu"))
    assert layout.query_groups.num_elements == n


def test_a_triangulated_square_has_six_neighbours_for_every_node():
    edges = geometries.triangles(7)
    assert edges.shape == (2, 3 * 49)
    both = torch.cat([edges, edges.flip(0)], dim=1)
    assert both[0].bincount().tolist() == [6] * 49
    assert len(both.unique(dim=1).T) == 6 * 49


def test_whoever_is_too_slow_or_has_no_backward_is_skipped_with_the_reason():
    large = geometries.Problem(geometries.image(512))
    with pytest.raises(Skipped, match="65,536 elements"):
        contestants.DENSE.attend(large)
    with pytest.raises(Skipped, match="no backward"):
        contestants.FLEX.attend(large, backward=True)


@pytest.mark.parametrize("make", [contestants.nystrom, contestants.performer])
@pytest.mark.filterwarnings("ignore")
def test_a_peer_is_near_dense_attention_where_it_should_be(make):
    problem = geometries.Problem(geometries.audio(256, 4, 16, 4), channels=16)
    try:
        attend = make(problem, 256 if make is contestants.nystrom else 4096)
    except Skipped as reason:
        pytest.skip(str(reason))
    q, k, v = (x.detach() * 0.7 for x in problem.tokens())
    right = contestants.dense(problem)(q, k, v)
    assert (attend(q, k, v) - right).norm() < 0.4 * right.norm()


def test_a_slow_run_is_made_once_and_a_fast_one_in_turns():
    calls = []
    runs = {"slow": lambda: calls.append("slow"), "fast": lambda: calls.append("fast")}
    found = medians(runs, torch.device("cpu"), rounds=3, at_most=0.0)
    assert calls == ["slow", "fast"]
    assert set(found) == {"slow", "fast"}
    calls.clear()
    medians(runs, torch.device("cpu"), rounds=3, at_most=9.0)
    assert calls == ["slow", "slow", "fast", "fast", "slow", "fast", "slow", "fast"]


@NEEDS_LINUX
def test_memory_that_a_fresh_process_needs_is_seen_though_it_is_given_back():
    used = in_fresh_process(resident_extra, twenty_million_bytes)
    assert 20e6 <= used < 40e6  # the code that the first call brings in counts


def twenty_million_bytes():
    """Give back all but a page."""
    return torch.ones(20_000_000, dtype=torch.int8)[:1].clone()
