"""A protocol's results as text, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .figure import draw
from .rows import METHODS, TITLES, Row, make_rows, title
from .runs import Run
from .tasks import Scores


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    names = list(rows[0].mean)
    several_shots = len({row.shots for row in rows}) > 1
    has_paper = any(row.paper for row in rows)
    lines = [["data set", "method", *(["shots"] if several_shots else []), *(TITLES[name] for name in names)]]
    lines[0] += [f"paper: {TITLES[name]}" for name in names] if has_paper else []
    for row in rows:
        cells = [title(row.dataset), METHODS[row.method], *([str(row.shots)] if several_shots else [])]
        for name in names:
            spread = f" ± {row.spread[name]:.2f}" if row.seeds > 1 and row.spread else ""
            cells.append(f"{row.mean[name]:.2f}{spread}")
        if has_paper:
            cells += [f"{row.paper[name]:.2f}" if name in row.paper else "-" for name in names]
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write_report(runs: Sequence[Run], results: Sequence[Scores], output_dir: Path) -> str:
    """Write `results.txt`, `results.json` and `results.png`; returns the table.

    Args:
        runs: runs of one protocol.
        results: the scores of each.
        output_dir: where to.
    """
    rows = make_rows(runs, results)
    text = table(rows)
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "results.txt").write_text(text + "\n")
    single = [
        {"dataset": run.data.name, "method": run.method, "shots": run.shots, "seed": run.seed, "scores": scores}
        for run, scores in zip(runs, results, strict=True)
    ]
    content = {"protocol": runs[0].protocol, "rows": [asdict(row) for row in rows], "runs": single}
    (output_dir / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    draw(rows, output_dir / "results.png")
    return text
