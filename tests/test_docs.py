"""What the docs show runs, each page from its top to its end."""

import re
from pathlib import Path

import pytest

NAMES = (
    "index.md",
    "concepts.md",
    "ragged.md",
    "diagnostics.md",
    "relatives.md",
    "selection.md",
    "rankings.md",
    "drop_in.md",
    "diffusers.md",
    "transformers.md",
)
PAGES = [Path(__file__).parents[1] / "docs" / name for name in NAMES]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    exec("\n".join(blocks), {})
