# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The link on a task's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

GALLERY = "https://app.pictory.ai"
"""Pictory's own site. It documents no page of a single job."""


class PictoryJobLink(BaseOperatorLink):
    """The finished image, at the URL that Pictory gave; until then the page where the account's images are.

    Airflow asks for the link on the worker, at the end of every leg of a task, and keeps the answer. So the
    task's own ``image_url`` tells it, which the leg that finishes has set.
    """

    name = "Pictory image"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  Airflow calls it so
        """Return the image's URL, or the gallery's while there is none."""
        return getattr(operator, "image_url", None) or GALLERY
