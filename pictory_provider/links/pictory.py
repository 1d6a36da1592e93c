# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The link on a task's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


class PictoryJobLink(BaseOperatorLink):
    """The finished image, at the URL that Pictory gave."""

    name = "Pictory image"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the image's URL, or an empty string while there is none. Never raises into the UI."""
        try:
            record: Any = XCom.get_value(key=getattr(operator, "image_xcom_key", "return_value"), ti_key=ti_key)
            return str(record.get("url") or "")
        except Exception:
            return ""
