"""A mutant's verdict is what its tests make of it."""

import pytest

from tests.trust.mutants.fork import Tree

TEST = "tests/test_answer.py::test_the_answer"


@pytest.fixture
def tree(tmp_path):
    """A library of one number, with one test."""
    root, copy = tmp_path / "root", tmp_path / "copy"
    for name in ("gpa_nd", "tests"):
        (root / name).mkdir(parents=True)
    copy.mkdir()
    (root / "gpa_nd/__init__.py").write_text("answer = 42\n")
    (root / "tests/conftest.py").write_text("def pytest_addoption(parser):\n    parser.addoption('--few')\n")
    (root / "tests/test_answer.py").write_text(
        "import gpa_nd\n\ndef test_the_answer():\n    assert gpa_nd.answer > 0\n"
    )
    return Tree(root, copy)


@pytest.mark.parametrize(
    ("source", "outcome", "test"),
    [
        ("answer = 41\n", "survived", ""),
        ("answer = -42\n", "killed", TEST),
        ("answer = 1 / 0\n", "killed", "tests/test_answer.py"),
        (
            "import os\nclass Answer:\n    def __gt__(self, other):\n        os.abort()\nanswer = Answer()\n",
            "crashed",
            TEST,
        ),
    ],
)
def test_a_verdict_says_what_became_of_a_mutant(source, outcome, test, tree):
    verdict = tree.test("gpa_nd/__init__.py", source, [TEST], {TEST: 0.01})
    assert (verdict.outcome, verdict.test) == (outcome, test), verdict
    assert (tree.folder / "gpa_nd/__init__.py").read_text() == "answer = 42\n"


def test_what_loops_for_ever_is_stopped(tree, monkeypatch):
    monkeypatch.setattr("tests.trust.mutants.fork.PATIENCE", (0.5, 1.0))
    source = "class Answer:\n    def __gt__(self, other):\n        while True:\n            pass\nanswer = Answer()\n"
    assert tree.test("gpa_nd/__init__.py", source, [TEST], {TEST: 0.01}).outcome == "timeout"


def test_without_tests_nothing_is_said_to_survive(tree):
    assert (
        tree.test("gpa_nd/__init__.py", "answer = 41\n", ["tests/test_answer.py::test_gone"], {}).outcome == "not run"
    )
