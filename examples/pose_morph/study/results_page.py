"""The page of results."""

from html import escape

from examples.pose_morph.study.rates import Rate, StudyResult

STANDINGS = {
    "answering": "still answering",
    "counts": "counts",
    "failed": "does not count: too few golden questions right",
    "unverified": "does not count: left before there were enough golden questions",
}


def percent(share: float | None) -> str:
    """Return a share as people read it."""
    return "–" if share is None else f"{100 * share:.1f}\u00a0%"


def interval(bounds: tuple[float, float] | None) -> str:
    """Return an interval as people read it."""
    return "–" if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}\u00a0%"


def seconds(value: float | None) -> str:
    """Return a time as people read it."""
    return "–" if value is None else f"{value:.2f}\u00a0s"


def results_page(result: StudyResult) -> str:
    """Return the page as HTML; it loads itself again every ten seconds."""
    people = "".join(
        f"<tr><td>{number}</td><td>{person.answers}</td><td>{person.golden_right} of {person.golden_answered}</td>"
        f"<td>{escape(STANDINGS[person.standing])}</td></tr>"
        for number, person in enumerate(result.participants, start=1)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="10">
<title>Real or generated? Results</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/study.css">
</head>
<body>
<main>
<h1>Results</h1>
<p>{result.places_filled} of {result.places} answers are there or on their way. Counted are people who are done and had
enough golden questions right. Mean time to an answer: {seconds(result.mean_seconds)}; median:
{seconds(result.median_seconds)}.</p>
<table>
<thead><tr><th></th><th>share</th><th>answers</th><th>95 %, Wilson</th><th>95 %, over people</th></tr></thead>
<tbody>
{_row("R2G", "real taken for generated", result.r2g)}
{_row("G2R", "generated taken for real", result.g2r)}
</tbody>
</table>
<p>Wilson's interval takes all answers as independent. Those of one person are not, so the interval over people
(bootstrap) is usually wider; with few people it is crude.</p>
<h2>Participants</h2>
<table>
<thead><tr><th></th><th>answers</th><th>golden right</th><th></th></tr></thead>
<tbody>{people or '<tr><td colspan="4">nobody yet</td></tr>'}</tbody>
</table>
</main>
</body>
</html>
"""


def _row(name: str, meaning: str, rate: Rate) -> str:
    return (
        f'<tr><th scope="row">{name}<br><small>{meaning}</small></th><td>{percent(rate.share)}</td>'
        f"<td>{rate.taken} of {rate.answers}</td><td>{interval(rate.wilson)}</td>"
        f"<td>{interval(rate.bootstrap)}</td></tr>"
    )
