"""Pages are filled-in templates of jinja2: how these are read."""

from __future__ import annotations

import functools

import jinja2


@functools.cache
def template(package: str, name: str) -> jinja2.Template:
    """A template that lies beside the modules of a package."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"percent": _percent, "points": _points, "count": "{:,}".format}
    return environment.get_template(name)


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _points(difference: float) -> str:
    """A difference of two shares in percentage points."""
    points = round(100 * difference)
    return f"{points:+d}".replace("-", "\N{MINUS SIGN}") if points else "±0"
