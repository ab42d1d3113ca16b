"""What `monitor` writes: findings as JSON, and as a page to open in a browser."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import PIL.Image

from ..data import PictureError
from ..reports.gallery import SIZE, picture_uri
from ..reports.templates import template
from .watching import Findings


WIDTH, HEIGHT = 720, 200  # of the chart
LEAST, MOST = -3.0, 6.0  # powers of ten that it shows


def write_findings(
    folder: Path, findings: Findings, notes: list[str], title: str, read: Callable[[str], PIL.Image.Image]
) -> None:
    """Write `monitor.json` and `monitor.html`, one file with everything in it.

    Args:
        folder: that is there.
        findings: from `watch`.
        notes: further lines for people.
        title: name of the adapter.
        read: path -> picture.
    """
    content = {**findings.to_dict(), "notes": notes}
    (folder / "monitor.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    top = max(MOST, math.log10(findings.threshold) + 1)
    page = template(__package__, "monitor.html").render(
        title=title,
        findings=findings,
        notes=notes,
        drivers=[(step, _thumbnail(step.path, read)) for step in findings.drivers],
        width=WIDTH,
        height=HEIGHT,
        line=" ".join(
            f"{WIDTH * (at + 1) / len(findings.steps):.1f},{_height(step.evidence, top):.1f}"
            for at, step in enumerate(findings.steps)
        ),
        start=_height(1, top),
        limit=_height(findings.threshold, top),
    )
    (folder / "monitor.html").write_text(page, encoding="utf-8")


def _height(evidence: float, top: float) -> float:
    power = min(top, max(LEAST, math.log10(evidence))) if evidence > 0 else LEAST
    return HEIGHT * (top - power) / (top - LEAST)


def _thumbnail(path: str, read: Callable[[str], PIL.Image.Image]) -> str | None:
    try:
        picture = read(path)
    except PictureError:  # it was there a moment ago
        return None
    picture.thumbnail((SIZE, SIZE))
    return picture_uri(picture)
