"""What the docs show runs, each page from its top to its end."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NAMES = ("index.md", "concepts.md", "ragged.md", "diagnostics.md", "relatives.md", "selection.md", "rankings.md")
OF_THE_EXPORTER = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
PAGES = [*NAMES, pytest.param("pytorch.md", marks=OF_THE_EXPORTER)]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the pages write their files
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert blocks
    exec("\n".join(blocks), {})
