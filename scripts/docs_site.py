"""What mkdocs builds beside the pages of docs/: the page of every law, the tables of fields and
columns, and pictures of results that a page shows. mkdocs calls the functions `on_...`.
"""

import dataclasses
import inspect
import re
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts.laws_page import laws_page, row

ROOT = Path(__file__).parents[1]
REQUEST = re.compile(r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="?(?:https?:)?//[^ >]*')
OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./)+(results[^)]*)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """With the page of the laws, and every picture of results/ that a page shows."""
    files.append(File.generated(config, "laws.md", content=laws_page()))
    for page in list(files.documentation_pages()):
        for _, target in OUTSIDE.findall(page.content_string):
            if (ROOT / target).is_file() and files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Tables in the place of their marks, and links out of docs/ as the site has them."""
    for mark, table in {"fields": fields, "columns": columns, "template": template}.items():
        if f"<!-- {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- {mark} -->", table())
    return OUTSIDE.sub(_inside, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """A page that would fetch something from elsewhere is refused."""
    if found := REQUEST.search(output):
        raise PluginError(f"{page.file.src_uri}: {found[0]} is fetched from another host")
    return output


def _inside(link: "re.Match[str]") -> str:
    """A picture's own address; of a folder, which is no part of the site, its name."""
    said, target = link.groups()
    return f"[{said}]({target})" if (ROOT / target).is_file() else f"`{said}`"


def template() -> str:
    """What `scalelab sweep init` writes."""
    from sweeps.studies import TEMPLATE

    return f"```yaml\n{TEMPLATE.read_text()}```"


def columns() -> str:
    """The columns of the table of runs."""
    from ground.columns import TABLE

    rows = [row(f"`{c.name}`", c.kind.__name__, c.unit, c.meaning) for c in TABLE]
    return "\n".join([row("column", "type", "unit", "meaning"), "|---|---|---|---|", *rows])


def fields() -> str:
    """The fields of a trial, with the text that stands under each in its source."""
    from lab.records import Trial

    source = inspect.getsource(Trial)
    head = [row("field", "type", "default", "meaning"), "|---|---|---|---|"]
    return "\n".join(head + [_field(f, source) for f in dataclasses.fields(Trial)])


def _field(field: "dataclasses.Field[Any]", source: str) -> str:
    found = re.search(rf'^    {field.name}: .*?\n    """(.*?)"""', source, re.S | re.M)
    assert found is not None, field.name
    default = "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
    kind = getattr(field.type, "__name__", str(field.type))
    return row(f"`{field.name}`", kind, default, escape(" ".join(found[1].split())))
