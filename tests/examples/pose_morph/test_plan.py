"""The plan that is printed before training."""

import io

import pytest
from rich.console import Console

from examples.pose_morph import plan
from examples.pose_morph.networks.attention_names import with_attention
from examples.pose_morph.networks.discriminator import Discriminator
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.networks.settings import Full, Grid
from examples.pose_morph.plan import count_parameters, plan_table, print_plan
from examples.pose_morph.presets import DEEPFASHION256, DEMO, HIGHRES512, TINY

PARAMETERS = {
    "demo": (DEMO, 3_414_385, 718_289),
    "tiny": (TINY, 776_924, 176_309),
    "deepfashion256": (DEEPFASHION256, 209_253_938, 60_663_521),
    "highres512": (HIGHRES512, 248_771_218, 117_213_057),
}


def printed(model, batch_size: int = 1) -> str:
    """The plan as text."""
    console = Console(file=io.StringIO(), width=120)
    print_plan(console, model, batch_size)
    return console.file.getvalue()


def rows_of(text: str) -> list[list[str]]:
    """The cells of the table's rows."""
    return [
        [cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines() if line.startswith("│")
    ]


@pytest.mark.parametrize(("preset", "generator", "discriminator"), PARAMETERS.values(), ids=PARAMETERS)
def test_parameters_are_counted_and_printed(preset, generator, discriminator):
    assert count_parameters(preset.model) == (generator, discriminator)
    assert f"parameters: generator {generator:,}, discriminator {discriminator:,}" in printed(preset.model)


def test_counting_on_paper_is_counting_the_weights():
    built = Generator(TINY.model), Discriminator(TINY.model)
    assert count_parameters(TINY.model) == tuple(sum(p.numel() for p in network.parameters()) for network in built)


def test_the_plan_has_a_row_for_every_attention_layer():
    rows = plan_table(DEEPFASHION256.model, 3)
    assert [row.size for row in rows] == [(8 << i, 8 << i) for i in range(6)]
    assert [row.name for row in rows] == ["full"] * 4 + ["GPA1024_12_64"] * 2
    assert [row.attention for row in rows[3:]] == [Full(), Grid(2, (32, 32), 12), Grid(4, (32, 32), 12)]
    assert rows[3].operations == 3 * 4096**2 * 2 * 640
    once = plan_table(DEEPFASHION256.model, 1)
    assert [row.operations for row in rows] == [3 * row.operations for row in once]
    assert all(row.memory > one.memory for row, one in zip(rows, once, strict=True))


def test_the_table_shows_m_d_and_kappa_of_gpa_and_the_rank_of_its_rivals():
    gpa = rows_of(printed(DEEPFASHION256.model))
    assert gpa[4][:5] == ["128x128", "GPA1024_12_64", "1024", "2", "12"]
    assert gpa[5][:5] == ["256x256", "GPA1024_12_64", "1024", "4", "12"]
    assert gpa[0][:5] == ["8x8", "full", "", "", ""]
    rival = rows_of(printed(with_attention(DEEPFASHION256.model, "NYF512")))
    assert rival[5][:3] == ["256x256", "NYF512", "512"]
    none = rows_of(printed(with_attention(DEEPFASHION256.model, "no")))
    assert none[5] == ["256x256", "NO", "0.00", "0.0"]


def test_another_precision_is_said_to_be_no_part_of_the_memory():
    console = Console(file=io.StringIO(), width=120)
    print_plan(console, TINY.model, 2, precision="bfloat16")
    said = console.file.getvalue()
    assert "float32, batch size 2" in said
    assert "the MiB are float32's; bfloat16 takes between half of them and about all" in said
    assert "takes between half" not in printed(TINY.model)


def test_the_sum_is_that_of_the_rows():
    rows = rows_of(printed(DEMO.model, 4))
    assert rows[-1][0] == "sum"
    assert sum(float(row[-1]) for row in rows[:-1]) == pytest.approx(float(rows[-1][-1]), abs=0.3)


def test_ranks_that_are_not_what_the_name_says_are_explained():
    text = printed(with_attention(TINY.model, "performer"))
    assert "32x20: rank 160, at most 1/4 of the 640 keys; the paper's 512 is too much" in text
    text = printed(with_attention(DEEPFASHION256.model, "NYF708"))
    assert "128x128: 683 landmarks of 24 pixels; 708 would not be filled evenly" in text
    assert "landmarks" not in printed(with_attention(DEEPFASHION256.model, "NYF512"))


@pytest.mark.parametrize("attention", ["gpa", "performer"])
def test_a_dry_run_says_what_it_took(attention, monkeypatch, capsys):
    command = ["plan", "--preset", "tiny", "--attention", attention, "--batch-size", "2", "--dry-run", "cpu"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as stopped:
        plan.main()
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "forward and backward on cpu: " in said
    assert "GiB at the peak" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attention", "GPA7_4_32"], "attention GPA7_4_32: Phase 1 at 32x20 divides into 40, 160, 640 cells, not 7"),
        (["--batch-size", "0"], "--batch-size: expected at least 1, got 0"),
        (
            ["--preset", "tiny", "--batch-size", str(10**12), "--dry-run", "cpu"],
            "--dry-run: 1000000000000 pictures do not fit into the memory of cpu",
        ),
        (["--dry-run", "gpu"], "--dry-run: expected auto, cpu, cuda, cuda:N or mps, got gpu"),
    ],
)
def test_bad_options_are_messages(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["plan", *arguments])
    with pytest.raises(SystemExit) as stopped:
        plan.main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().out.replace("\n", " ")
