# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The page *Configuration reference*, made from the code: ``python -m tests.docs.configuration`` writes it anew."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from pictory_provider import __version__
from pictory_provider.api.connection import ConnectionSettings
from pictory_provider.provider_info import CONNECTION_FIELDS, DEFAULT_CONN_ID, OPTIONS
from tests.docs.snippets import ROOT

PAGE = ROOT / "docs" / "configuration.md"
RELEASES = {
    file.parent.name: json.loads(file.read_text())
    for file in sorted(ROOT.glob("tests/provider/releases/*/interface.json"))
}
TEXT = f"""# Configuration reference

<!-- `make docs-update` writes this page from `pictory_provider/provider_info.py`. -->

## Options of Airflow

In the section `[pictory]` of `airflow.cfg`, or as environment variables.
Each component reads them when it starts.

{{options}}
## Fields of the connection

A connection of type `pictory` has its [API key as password, and its base URL as host](connection.md).
All other fields are in its `extra`; none is required.

{{fields}}
As an environment variable, with every field that you want to set in `extra`:

```bash
export AIRFLOW_CONN_{DEFAULT_CONN_ID.upper()}='{{example}}'
```

`HTTPS_PROXY`, `NO_PROXY`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` and `SSL_CERT_FILE` are read [if the connection does not set these](connection.md#proxies-and-custom-certificates).
"""


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def since(field: str) -> str:
    """Return the first release whose connections have a field."""
    return next((version for version, had in RELEASES.items() if field in had["connection"]), "the next release")


def option(name: str, about: dict[str, Any]) -> str:
    """Return the section of an option."""
    example = [("example", f"`{about['example']}`")] if about["example"] else []
    rows = [
        ("type", about["type"]),
        ("default", shown(about["default"])),
        ("since", about["version_added"]),
        ("environment variable", f"`AIRFLOW__PICTORY__{name.upper()}`"),
        *example,
    ]
    return f"### {name}\n\n{about['description']}\n\n{table((f'`{name}`', ''), rows)}"


def type_of(schema: dict[str, Any]) -> str:
    """Return the type of a field, with its limits."""
    (kind,) = (each for each in schema["type"] if each != "null")
    limits = {"exclusiveMinimum": "above {}", "minimum": "{} or more", "maximum": "up to {:,}"}
    return ", ".join([kind, *(text.format(schema[name]) for name, text in limits.items() if name in schema)])


def shown(default: Any) -> str:
    """Return a default as the page shows it."""
    if default in (None, ""):
        return "empty"
    text = default if isinstance(default, str) else f"{default:g}"
    return f"`{text.replace(__version__, '<version>')}`"


def page() -> str:
    """Return the page."""
    defaults = {field.name: field.default for field in dataclasses.fields(ConnectionSettings)}
    rows = [
        (
            f"`{name}`",
            type_of(field["schema"]),
            shown(defaults[name]),
            since(name),
            field["description"],
        )
        for name, field in CONNECTION_FIELDS.items()
    ]
    example = {"conn_type": "pictory", "password": "pictai_...", "extra": {"timeout": 30, "credits_per_day": 50}}
    return TEXT.format(
        options="\n".join(option(name, about) for name, about in OPTIONS.items()),
        fields=table(("extra", "type", "default", "since", "what it does"), rows),
        example=json.dumps(example),
    )


if __name__ == "__main__":
    PAGE.write_text(page())
