"""One version, wherever it is written."""

import re
from pathlib import Path

import gpa_nd

ROOT = Path(__file__).parents[1]


def test_the_changelog_and_the_citation_are_of_this_version():
    headings = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    (unreleased, _), (newest, date), *_ = headings
    citation = dict(re.findall(r"^(version|date-released): (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    assert unreleased == "Unreleased"
    assert newest == gpa_nd.__version__ == citation["version"]
    assert date == citation["date-released"]
