"""How many cases a line of trust tries, and the figures that it leaves below the test run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

FIGURE = "figure of trust"


@pytest.fixture
def each_of(request: pytest.FixtureRequest, cases) -> Callable[..., None]:
    """``each_of(strategy, in_ci, nightly, check)``: check so many values that the strategy draws.

    In CI they are the same ones each time; in the night new ones, unless ``--hypothesis-seed`` is given. What fails is
    shrunk, and printed with what repeats it.
    """
    night = request.config.getoption("--nightly")

    def run(strategy: SearchStrategy, in_ci: int, nightly: int, check: Callable[..., None]) -> None:
        count = settings(
            max_examples=cases(in_ci, nightly),
            derandomize=not night,
            database=None,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        count(given(strategy)(check))()

    return run


@pytest.fixture
def figure(record_property) -> Callable[[str], None]:
    """``figure("31 cases")``: a line for docs/trust.md, printed below the test run, also with several workers."""
    return lambda text: record_property(FIGURE, text)


def pytest_terminal_summary(terminalreporter) -> None:
    lines = [
        f"{report.nodeid.rpartition('/')[2]}: {text}"
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        for name, text in report.user_properties
        if name == FIGURE and report.when == "call"
    ]
    if lines:
        terminalreporter.section("figures of trust")
        terminalreporter.write_line("\n".join(lines))
