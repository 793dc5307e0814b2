"""The measure of memory: on allocations worked out by hand, and on the attention kinds of the paper."""

from dataclasses import replace

import pytest
import torch

from examples.pose_morph.errors import UserError
from examples.pose_morph.experiments.attention_memory import attention_memory, peak_allocated
from examples.pose_morph.networks.attention_names import with_attention
from examples.pose_morph.networks.generator import Generator
from examples.pose_morph.presets import PRESETS

CPU = torch.device("cpu")
KILOBYTE = 1024


def memory_of(attention: str) -> int:
    """The bytes of a network of 64x40 with that attention at the two large levels."""
    return attention_memory(Generator(with_attention(PRESETS["tiny"].model, attention)), CPU)


def test_the_peak_counts_what_is_there_at_the_same_time():
    def pattern() -> None:
        kept = torch.empty(3 * KILOBYTE, dtype=torch.uint8)
        for _ in range(3):
            passing = torch.empty(5 * KILOBYTE, dtype=torch.uint8)
            del passing
        last = torch.empty(4 * KILOBYTE, dtype=torch.uint8)
        del kept, last

    assert peak_allocated(pattern, CPU) == 8 * KILOBYTE


def test_what_was_there_before_and_the_first_call_do_not_count():
    before, cached = torch.empty(100 * KILOBYTE), []

    def run() -> None:
        if not cached:
            cached.append(torch.empty(50 * KILOBYTE))
        torch.empty(2 * KILOBYTE, dtype=torch.uint8)

    assert peak_allocated(run, CPU) == 2 * KILOBYTE
    assert before.numel() == 100 * KILOBYTE


def test_the_kinds_stand_in_the_papers_order_and_the_measure_repeats():
    gpa = memory_of("gpa")
    assert memory_of("no") < gpa < memory_of("full")
    assert memory_of("gpa") == gpa


def test_a_level_without_attention_among_levels_with_it_does_not_shift_the_others():
    model = PRESETS["tiny"].model
    levels = tuple(replace(level, attention=None) if depth == 2 else level for depth, level in enumerate(model.levels))
    without = attention_memory(Generator(replace(model, levels=levels)), CPU)
    assert 0.8 * memory_of("gpa") < without < memory_of("gpa")


def test_a_device_without_a_record_of_its_memory_is_refused():
    with pytest.raises(UserError, match="can be measured on cpu and cuda, not on meta"):
        peak_allocated(lambda: None, torch.device("meta"))
