"""A protocol's results as text, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from accelerate import PartialState

from ..training.run_folder import RunFolder, write_json, writing
from .chart import draw
from .rows import METHOD_TITLES, SCORE_TITLES, SOURCES, Row, make_rows, published_results, title
from .runs import Run
from .tasks import Results


def table(rows: Sequence[Row]) -> str:
    """The rows as text: mean and standard deviation of each score, and published ones where there are any."""
    names = list(rows[0].mean)
    several_shots = len({row.shots for row in rows}) > 1
    sources = [source for source in SOURCES if any(getattr(row, source) for row in rows)]
    lines = [
        [
            "data set",
            "method",
            *(["shots"] if several_shots else []),
            *(SCORE_TITLES[name] for name in names),
            *sources,
        ]
    ]
    for row in rows:
        cells = [title(row.dataset), METHOD_TITLES[row.method], *([str(row.shots)] if several_shots else [])]
        for name in names:
            spread = f" ± {row.spread[name]:.2f}" if row.seeds > 1 and row.spread else ""
            cells.append(f"{row.mean[name]:.2f}{spread}")
        published = [getattr(row, source) for source in sources]
        cells += [" / ".join(f"{found[name]:.2f}" for name in names if name in found) or "-" for found in published]
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    notes = [f"{source}: {published_results()['sources'][source]}" for source in sources]
    return "\n".join(text + ([""] if notes else []) + notes)


def report(runs: Sequence[Run], results: Sequence[Results], output_dir: Path) -> None:
    """Write `results.txt`, `results.json` and `results.png`, and print the table; the main process does.

    Args:
        runs: runs of one protocol.
        results: the scores of each, by method.
        output_dir: where to.
    """
    if not PartialState().is_main_process:
        return
    rows = make_rows(runs, results)
    incomplete = {name: count for run in runs for name, count in run.incomplete.items()}
    marks = [f"not comparable: {title(name)}, of which {count} were used" for name, count in incomplete.items()]
    text = "\n".join([table(rows), *marks])
    single = [
        {"dataset": run.data.name, "method": method, "shots": run.shots, "seed": run.seed, "scores": scores}
        for run, by_method in zip(runs, results, strict=True)
        for method, scores in by_method.items()
    ]
    content = {"protocol": runs[0].protocol, "rows": [asdict(row) for row in rows], "runs": single}
    content |= {"not_comparable": incomplete} if incomplete else {}
    with RunFolder(output_dir).finish({"kind": runs[0].protocol}) as new, writing(output_dir / "results.json"):
        write_json(new / "results.json", content)
        (new / "results.txt").write_text(text + "\n", encoding="utf-8")
        draw(rows, new / "results.png")
    print(text)
