"""One table per question, from what a run found."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.rows import PIVOT, VIDEO
from benchmarks.tables import Table, mebibytes, milliseconds, ratio, times

Entry = dict[str, Any]

CHECKED = ("out", "dq", "dk", "dv", "dlogits", "dbias")


def tables(found: Entry) -> list[Table]:
    """All tables that there is something for."""
    made = [_checks(found), _against_dense(found), _against_flex(found), _against_torch(found), _where(found)]
    made += [_memory(found), _tuning(found), _targets(found)]
    return [table for table in made if table.rows]


def problems(found: Entry, sections: list[str]) -> list[str]:
    """What makes the run a failure: checks that failed, and rows of these sections that broke. Never a time."""
    words = []
    for section in sections:
        for entry in found.get(section, []):
            where = f"{section}: {entry['row']}, {entry['dtype']}"
            words += [f"{where}: {fault}" for fault in entry.get("faults", [])]
            if "error" in entry:
                words.append(f"{where}: {entry['error']}")
            parts = [entry[name] for name in ("fused", "phase 1", "phase 2") if name in entry]
            values = [*(value for part in parts for value in part.values()), *entry.get("phases", [])]
            values.append(entry.get("kernels"))
            words += [f"{where}: {x['error']}" for x in values if isinstance(x, dict) and "error" in x]
    return words


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) else None


def _of(entry: Entry, *path: str) -> float | None:
    value: Any = entry
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return _number(value)


def _name(entry: Entry) -> str:
    return f"{entry['row']}, {entry['dtype']}"


def _best_dense(entry: Entry, which: str) -> tuple[float | None, str]:
    """The fastest backend of dense attention, and its name."""
    dense = entry.get("dense", {})
    found = [(seconds, name) for name in dense if (seconds := _of(dense, name, which)) is not None]
    return min(found) if found else (None, "")


def _checks(found: Entry) -> Table:
    table = Table(
        "Is it right?",
        ("row", *CHECKED, "ranking", "repeats", ""),
        note="Errors over what is allowed, against the float64 reference with the same selection: up to 1 is right. "
        "Ranking: by how much, relatively, a coarse key left out is better than one chosen. New memory held NaN.",
    )
    for entry in found.get("check", []):
        over = entry.get("over_budget", {})
        cells = [None if name not in over else f"{over[name]:.2f}" for name in CHECKED]
        gap = None if "gap" not in entry else f"{entry['gap']:.1e}"
        verdict = "error" if "error" in entry else "WRONG" if entry["faults"] else "right"
        table.add(_name(entry), *cells, gap, entry.get("repeats"), verdict)
    return table


def _against_dense(found: Entry) -> Table:
    table = Table(
        "How much faster than dense attention, and how far from the machine's floor?",
        ("row", "forward", "graph", "dense", "ratio", "floor", "÷ floor", "with backward", "dense", "ratio", "÷ floor"),
        note="Both phases and all rearranging, end to end. Graph: the same as one CUDA graph, without the time that "
        "Python needs to launch. Dense: the fastest backend of scaled_dot_product_attention over the same tokens. "
        "Floor: operations ÷ measured matmul rate + bytes ÷ measured copy rate.",
    )
    for entry in found.get("time", []):
        cells: list[object] = []
        for which in ("forward", "both"):
            mine = _of(entry, "fused", which)
            other, name = _best_dense(entry, which)
            floor = _of(entry, "floor", which)
            cells.append(milliseconds(mine))
            if which == "forward":
                cells.append(milliseconds(_of(entry, "fused", "forward graph")))
            cells += [None if other is None else f"{milliseconds(other)} {name.split('_')[0].lower()}"]
            cells.append(times(ratio(other, mine)))
            if which == "forward":
                cells.append(milliseconds(floor))
            cells.append(times(ratio(mine, floor)))
        table.add(_name(entry), *cells)
    return table


def _against_flex(found: Entry) -> Table:
    table = Table(
        "Against FlexAttention given the same blocks",
        ("row", "phase 2", "Flex", "ratio", "with backward", "Flex", "ratio", "why not"),
        note="Phase 2 alone; FlexAttention compiled, with the time to bring tokens into blocks and back.",
    )
    for entry in found.get("time", []):
        flex = entry.get("flex", {})
        cells: list[object] = []
        for which in ("forward", "both"):
            mine, other = _of(entry, "phase 2", which), _of(flex, which)
            cells += [milliseconds(mine), milliseconds(other), times(ratio(other, mine))]
        errors = [flex.get("error"), *(x.get("error") for x in flex.values() if isinstance(x, dict))]
        why = next((x for x in errors if x), "")
        if (off := _of(flex, "differs")) is not None and not off < 0.05:
            why = f"its result differs by {off:.2g}"
        table.add(_name(entry), *cells, why[:90])
    return table


def _against_torch(found: Entry) -> Table:
    table = Table("Against the torch backend", ("row", "fused", "torch", "ratio", "with backward", "torch", "ratio"))
    for entry in found.get("time", []):
        cells: list[object] = []
        for which in ("forward", "both"):
            mine, other = _of(entry, "fused", which), _of(entry, "torch", which)
            cells += [milliseconds(mine), milliseconds(other), times(ratio(other, mine))]
        table.add(_name(entry), *cells)
    return table


def _where(found: Entry) -> Table:
    entries = found.get("time", [])
    kernels = list(dict.fromkeys(name for entry in entries for name in entry.get("kernels", {}) if name != "error"))
    table = Table(
        "Where does the time go?",
        ("row", "phase 1", "phase 2", "its backward", *kernels),
        note="Kernels: one forward and backward pass, each launch between two events.",
    )
    for entry in entries:
        forward, both = (_of(entry, "phase 2", which) for which in ("forward", "both"))
        backward = None if forward is None or both is None else both - forward
        cells = [milliseconds(x) for x in (_of(entry, "phase 1", "forward"), forward, backward)]
        table.add(_name(entry), *cells, *(milliseconds(_of(entry, "kernels", name)) for name in kernels))
    return table


def _memory(found: Entry) -> Table:
    table = Table(
        "How much memory at its peak, over what was there before?",
        ("row", "fused", "torch", "dense", "with backward", "torch", "dense"),
        note="Results and gradients included. Dense: its leanest backend.",
    )
    for entry in found.get("time", []):
        cells: list[object] = []
        for which in ("forward bytes", "both bytes"):
            dense = [x for name in entry.get("dense", {}) if (x := _of(entry, "dense", name, which)) is not None]
            values = (_of(entry, "fused", which), _of(entry, "torch", which), min(dense, default=None))
            cells += [mebibytes(x) for x in values]
        table.add(_name(entry), *cells)
    return table


def _tuning(found: Entry) -> Table:
    table = Table("Faster configurations", ("row", "phase", "before", "after", "tried", "what to choose"))
    for entry in found.get("tune", []):
        for phase in entry.get("phases", []):
            after = milliseconds(phase.get("after"))
            changed = "; ".join(f"{name}: {values}" for name, values in phase.get("changed", {}).items())
            cells = (milliseconds(phase["before"]), after, phase.get("tried"), phase.get("error") or changed or "as is")
            table.add(_name(entry), phase["phase"], *cells)
    return table


def _targets(found: Entry) -> Table:
    table = Table("What was hoped for on an H100", ("what", "hoped for", "measured"))
    entries = {(entry["row"], entry["dtype"]): entry for entry in found.get("time", [])}
    pivot, video = entries.get((PIVOT, "bfloat16")), entries.get((VIDEO, "bfloat16"))
    for entry, which, least in ((pivot, "forward", 30), (pivot, "both", 40), (video, "forward", 10)):
        if entry:
            got = ratio(_best_dense(entry, which)[0], _of(entry, "fused", which))
            passes = "forward" if which == "forward" else "forward and backward"
            table.add(f"{entry['row']}: {passes} over dense", f"≥ {least}×", times(got))
    if pivot:
        for which, passes in (("forward", "forward"), ("both", "forward and backward")):
            over = ratio(_of(pivot, "fused", which), _of(pivot, "floor", which))
            table.add(f"{PIVOT}: {passes} over the floor", "≤ 3×", times(over))
    for entry in entries.values():
        if (got := ratio(_of(entry, "flex", "forward"), _of(entry, "phase 2", "forward"))) is not None:
            table.add(f"{_name(entry)}: FlexAttention over phase 2", "≥ 1×", times(got))
    return table
