"""What the docs show is so: pages run from top to end, tables are those of the results, and the reference is whole."""

import importlib.util
import inspect
import io
import json
import pkgutil
import re
from contextlib import redirect_stdout
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import gpa_nd
from benchmarks import report

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if "```python\n" in page.read_text()]
BEFORE = {"index.md": "your_data.md"}  # the front page shows constructors alone, with the names of that page
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
REFERENCE = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
MODULES = ["gpa_nd", "gpa_nd.testing"]
MODULES += [f"gpa_nd.{found.name}" for found in pkgutil.iter_modules(gpa_nd.__path__) if found.ispkg]
MODULES.remove("gpa_nd.engine")  # what is public of it stands in gpa_nd


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the exporter
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs_and_prints_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the pages write their files
    names, printed = {}, io.StringIO()
    with redirect_stdout(printed):
        for each in (*filter(None, [BEFORE.get(page.name)]), page.name):
            exec("\n".join(blocks(DOCS / each, "python")), names)
    for text in blocks(page, "text"):
        for part in text.split("…\n"):  # which stands for lines that are left out
            assert part in printed.getvalue()


def public(module):
    """What a module means others to use, by name."""
    module = importlib.import_module(module)
    here = [name for name, found in vars(module).items() if getattr(found, "__module__", "") == module.__name__]
    return {name: getattr(module, name) for name in getattr(module, "__all__", here) if not name.startswith("_")}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module):
    whole = re.search(rf"automodule:: {module}\n(?!   :no-members:)", REFERENCE)
    listed = set(re.findall(rf"auto(?:class|function|data):: {module}\.(\w+)(?:\(\))?\n", REFERENCE))
    elsewhere = {"GPA"} if module == "gpa_nd.nn" else set()  # documented as gpa_nd.GPA
    assert public(module)
    assert whole or set(public(module)) - elsewhere == listed


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_example_and_tells_its_errors(module):
    for name, found in public(module).items():
        if is_dataclass(found) or f":: {module}.{name}()\n" in REFERENCE:  # nobody makes one by hand
            continue
        assert ">>>" in found.__doc__, name
        assert inspect.isabstract(found) or "Raises:" in found.__doc__, name


@pytest.mark.filterwarnings("ignore:Setuptools is replacing distutils:UserWarning")
def test_commands_name_modules_and_extras_that_are_there():
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    text = "\n".join(page.read_text() for page in pages if "_build" not in page.parts)
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for module in sorted(set(re.findall(r"python -m ([\w.]+\w)", text))):
        assert importlib.util.find_spec(module), module
    for extra in ",".join(re.findall(r'-e "\.\[([\w,]+)\]"', text)).split(","):
        assert extra in extras


def test_every_result_is_shown():
    pages = "\n".join(page.read_text() for page in DOCS.glob("*.md"))
    for result in RESULTS:
        assert f"```{{include}} ../benchmarks/results/{result.stem}.md" in pages


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.stem)
def test_tables_are_made_from_the_numbers_that_are_committed(result, monkeypatch):
    kept = []
    monkeypatch.setattr("sys.argv", ["benchmarks"])
    monkeypatch.setattr(report, "run", lambda script, sections, options: kept.extend(sections))
    importlib.import_module(f"benchmarks.{result.stem}").main()
    found, shown = json.loads(result.read_text()), result.with_suffix(".md").read_text()
    assert {section.name for section in kept} == set(found) - {"machine"}
    for section in kept:
        for table in section.tables(found[section.name]):
            assert table.markdown() in shown


def test_pages_cite_as_citation_cff_does():
    cited = (ROOT / "CITATION.cff").read_text()
    title = re.search(r'type: article\n  title: "(.*)"', cited)[1]
    names = re.findall(r"given-names: (.*)\n +family-names: (.*)", cited)
    for page in (DOCS / "citing.md", ROOT / "README.md"):
        bibtex = " ".join(re.search(r"```bibtex\n(.*?)```", page.read_text(), re.DOTALL)[1].split()).replace(
            '{\\"o}', "ö"
        )
        assert title in bibtex
        assert " and ".join(f"{family}, {given}" for given, family in names) in bibtex
