"""Makes the HTML pages of a stage from its template: escaped, self-contained, whole on disk or not at all."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xray_vqa.core.jsonl import replacing


def write_page(
    path: Path, template: Path, values: Mapping[str, Any], filters: Mapping[str, Callable[[Any], str]]
) -> Path:
    """Write a page and return its path. A value that the template asks for and nobody gives is an error."""
    import jinja2  # reports alone need it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)  # pyright: ignore[reportUnknownMemberType] - jinja2 types it as a bare dict
    page = environment.get_template(template.name).render(values)
    with replacing(path) as stream:
        stream.write(page.encode("utf-8", "replace"))  # a file name that is no UTF-8 may stand in it
    return path
