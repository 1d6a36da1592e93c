# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What is told to metrics and to lineage. Neither may cost a picture, or the jobId of a paid job."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Stats

from pictory_provider.api.checks import without_query

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseHook

    from pictory_provider.api.models import Job

log = logging.getLogger(__name__)


def count(name: str, **more: Any) -> None:
    """Count something: ``Stats.incr``, whose backend may fail."""
    try:
        Stats.incr(name, **more)
    except Exception:
        log.debug("Could not count %s.", name, exc_info=True)


def report_lineage(hook: BaseHook, job: Job, uri: str) -> None:
    """Tell lineage which picture was read, and where it was written."""
    from airflow.providers.common.compat.sdk import get_hook_lineage_collector

    try:
        collector = get_hook_lineage_collector()
        collector.add_input_asset(context=hook, uri=str(without_query(job.url)))
        collector.add_output_asset(context=hook, uri=uri)
    except Exception as error:
        hook.log.warning("The picture is saved, and lineage could not be told of it: %r", error)
