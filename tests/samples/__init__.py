# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The shapes of Pictory's replies: one folder for each case, one file for each status.

Each is marked ``documented``, ``stated`` (by Pictory, outside its documentation), ``inferred``, or ``observed``: a
reply of the real Pictory, brought home by ``make live``. The parser reads them, and the simulator is held to them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pictory_provider.api.responses import Response

FOLDER = Path(__file__).parent
JOB_ID = "4d82d040-4394-4371-867d-72ae1dd62b6d"
MARKS = ("observed", "documented", "stated", "inferred")


@dataclass(frozen=True)
class Sample:
    """One reply."""

    case: str
    status: int
    mark: str
    source: str
    body: Any

    @property
    def name(self) -> str:
        return f"{self.case}/{self.status}"

    def response(self, **headers: str) -> Response:
        """Return the sample as the parser takes it."""
        raw = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return Response(self.status, headers, raw.encode())


def load(name: str) -> Sample:
    """Return the sample ``case/status``."""
    case, _, status = name.partition("/")
    return Sample(case, int(status), **json.loads((FOLDER / f"{name}.json").read_text()))


def shape_of(value: Any) -> Any:
    """Return the names and types of a JSON value."""
    if isinstance(value, dict):
        return {name: shape_of(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape_of(inner) for inner in value[:1]]
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


NAMES = sorted(str(file.relative_to(FOLDER).with_suffix("")) for file in FOLDER.glob("*/*.json"))
