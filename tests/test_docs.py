"""What the docs show runs, each page from its top to its end."""

import re
from pathlib import Path

import pytest

NAMES = ("index", "concepts", "ragged", "diagnostics", "relatives", "selection", "rankings", "distributed")
PAGES = [Path(__file__).parents[1] / "docs" / f"{name}.md" for name in NAMES]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    exec("\n".join(blocks), {})
