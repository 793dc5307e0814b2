"""Kernels compile for GPUs that are not there; and the check of that refuses what it must."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the extra 'triton' is not installed")

COMPILING = Path(__file__).with_name("compiling.py")
CHIPS = ["sm_80", "sm_90", "sm_100", "gfx942"]  # they share the cases out, of which each compiles all with --nightly


def compiled(*arguments):
    """What the compile check reports: compilations, and problems of the host functions."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(COMPILING), "--json", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode in (0, 1), run.stderr[-2000:]
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    wrong = any("problem" in line or line["faults"] for line in lines)
    assert run.returncode == wrong, run.stderr[-2000:]
    return [line for line in lines if "problem" not in line], [line for line in lines if "problem" in line]


@pytest.mark.parametrize("chip", CHIPS)
def test_every_configuration_fits_its_chip_and_uses_its_matrix_units(chip, request):
    share = () if request.config.getoption("--nightly") else ("--part", str(CHIPS.index(chip)), str(len(CHIPS)))
    reports, problems = compiled("--chip", chip, *share)
    assert not problems, "\n".join(line["problem"] for line in problems)
    faults = [f"{x['kernel']} {x['settings']} [{x['cases'][0]}]: {fault}" for x in reports for fault in x["faults"]]
    assert not faults, "\n".join(faults)
    assert {line["cases"][0].split(":")[0] for line in reports} == {"select", "attend"}
    multiplying = {line["kernel"] for line in reports if line["products"]}
    assert len(multiplying) >= 5, f"only {multiplying} multiply matrices: was anything compiled at all?"


@pytest.fixture(scope="module", params=["sm_90", "gfx942"])
def toys(request):
    """Kernels made to be accepted or refused; by the function that launches them."""
    reports, problems = compiled("--kernels", "toy_kernels", "--chip", request.param)
    found = {line["cases"][0].split(":")[0]: line for line in reports}
    return found, reports, " ".join(line["problem"] for line in problems), request.param


def test_a_kernel_that_fits_is_compiled_once_for_each_specialisation(toys):
    found, reports, _, chip = toys
    fitting = [line for line in reports if line["cases"][0].startswith("fits")]
    assert [line["faults"] for line in fitting] == [[], []]  # widths of 1024 and 2048 are one, 1023 another
    assert all(line["registers"] > 16 and line["products"] == 1 for line in fitting)
    assert set(found["fits"]["matrix"]) == {"wgmma" if chip == "sm_90" else "mfma"}


@pytest.mark.parametrize(
    ("toy", "fault"),
    [
        ("spills", "spills"),
        ("overflows", "bytes of shared memory"),
        ("is_left_out", "no matrix instruction"),
        ("is_rounded", "rounded to tf32"),
        ("is_no_program", "does not compile: CompilationError"),
    ],
)
def test_the_check_refuses_a_kernel_that(toy, fault, toys):
    faults = toys[0][toy]["faults"]
    assert any(fault in x for x in faults), faults


def test_the_check_refuses_half_precision_without_matrix_units(toys):
    if toys[3] == "gfx942":
        pytest.skip("its matrix units multiply float32 too")
    assert any("ordinary multiply-adds" in fault for fault in toys[0]["without_matrix_units"]["faults"])


def test_the_check_refuses_a_launch_that_no_gpu_takes(toys):
    assert "grid (1, 70000) is more than a GPU takes" in toys[2]


def test_the_check_reports_a_host_function_that_breaks(toys):
    assert "breaks_before_a_launch: " in toys[2]
    assert "ValueError: this host function refuses" in toys[2]
