# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What is told to metrics, to lineage, to assets and to Airflow's pages.

None of it may cost a picture, or the jobId of a paid job.
"""

from __future__ import annotations

import inspect
import logging
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from airflow.providers.common.compat.sdk import AirflowTaskTimeout, Stats

from pictory_provider.api.checks import without_query
from pictory_provider.api.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.providers.common.compat.sdk import BaseHook, Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from pictory_provider.api.models import Job

log = logging.getLogger(__name__)

REQUEST_KEY = "pictory_request"
"""The XCom that Airflow's pages show a picture from while it is drawn."""
FAILURE_KEY = "pictory_failure"
"""The XCom that says why a task has failed or was skipped, and what it was asked for; Airflow itself keeps that in
the log alone."""
_LONGEST_TEXT = 5_000
_P = ParamSpec("_P")
_R = TypeVar("_R")


def show_request(context: Any, submission: Any, *, is_waited_for: bool) -> None:
    """Leave in an XCom what is drawn, for Airflow's pages.

    :param submission: what is on record of it (:class:`pictory_provider.jobs.submission.Submission`).
    :param is_waited_for: whether the task waits for the picture, and then pushes its record too.
    """
    asked = submission.request or {}
    told = {"job_id": submission.job_id, "submitted_at": submission.submitted_at, "is_waited_for": is_waited_for}
    told |= {name: asked.get(name) for name in ("prompt", "model", "aspectRatio")}
    listed = MODELS.get(str(told["model"]))
    try:
        context["ti"].xcom_push(key=REQUEST_KEY, value={**told, "credits": listed.credits if listed else None})
    except Exception:
        log.debug("What is drawn could not be told to Airflow.", exc_info=True)


def tells_why(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a method of an operator that takes the ``context`` leave in an XCom why it failed, for Airflow's pages.

    A retry clears it, as every XCom of the try before.
    """
    position = list(inspect.signature(method).parameters).index("context")

    @wraps(method)
    def telling(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(*args, **kwargs)
        except (Exception, AirflowTaskTimeout) as error:
            # A deferral is none of these; a wait that is rescheduled says nothing of a failure.
            if type(error).__name__ != "AirflowRescheduleException":
                context = kwargs.get("context", args[position] if len(args) > position else None)
                _tell_why(args[0], context, error)
            raise

    return telling


def _tell_why(operator: Any, context: Any, error: BaseException) -> None:
    text = str(getattr(error, "message", None) or error).strip()
    told = {"error": type(error).__name__, "message": text[:_LONGEST_TEXT]}
    asked = {name: getattr(operator, name, None) for name in ("prompt", "model", "job_id")}
    told |= {name: value[:_LONGEST_TEXT] for name, value in asked.items() if isinstance(value, str)}
    try:
        context["ti"].xcom_push(key=FAILURE_KEY, value=told)
    except Exception:
        log.debug("Why the task failed could not be told to Airflow.", exc_info=True)


def count(name: str, **more: Any) -> None:
    """Count something: ``Stats.incr``, whose backend may fail."""
    try:
        Stats.incr(name, **more)
    except Exception:
        log.debug("Could not count %s.", name, exc_info=True)


def report_assets(context: Context, outlets: Sequence[Any], record: Mapping[str, Any]) -> None:
    """Give the events of a task's outlets the image record, without the query of its URL, as their ``extra``.

    https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/assets.html
    """
    told: dict[str, Any] = dict(record)
    if "url" in told:
        told["url"] = without_query(told["url"])
    for outlet in outlets:
        try:
            context["outlet_events"][outlet].extra.update(told)
        except Exception as error:
            log.warning("The picture is there, and the event of %r says nothing of it: %r", outlet, error)


def openlineage_of(inputs: Sequence[str | None], outputs: Sequence[str | None]) -> OperatorLineage[Any, Any]:
    """Return what OpenLineage is told of a task.

    https://airflow.apache.org/docs/apache-airflow-providers-openlineage/stable/guides/developer.html

    :param inputs: absolute local paths, and URLs; ``None`` is left out.
    :param outputs: the same.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(
        inputs=[Dataset(*dataset_name(place)) for place in inputs if place],
        outputs=[Dataset(*dataset_name(place)) for place in outputs if place],
    )


def dataset_name(place: str) -> tuple[str, str]:
    """Return namespace and name of what lies somewhere, as https://openlineage.io/docs/spec/naming wants them.

    The name is the real one, unencoded; a URL of the web loses its query, which may be a key to the picture.
    """
    scheme, separator, rest = place.partition("://")
    if not separator:
        return "file", place
    is_web = scheme in ("http", "https")
    if is_web:
        rest = str(without_query(place)).partition("://")[2]
    authority, slash, name = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}", slash + name if is_web else name


def report_lineage(hook: BaseHook, job: Job, uri: str) -> None:
    """Tell lineage which picture was read, and where it was written."""
    from airflow.providers.common.compat.sdk import get_hook_lineage_collector

    try:
        collector = get_hook_lineage_collector()
        collector.add_input_asset(context=hook, uri=str(without_query(job.url)))
        collector.add_output_asset(context=hook, uri=uri)
    except Exception as error:
        hook.log.warning("The picture is saved, and lineage could not be told of it: %r", error)


def report_output(hook: BaseHook, uri: str) -> None:
    """Tell lineage of a folder that was written. Its pictures would be too many: Airflow keeps a hundred."""
    from airflow.providers.common.compat.sdk import get_hook_lineage_collector

    try:
        get_hook_lineage_collector().add_output_asset(context=hook, uri=uri)
    except Exception as error:
        hook.log.warning("The pictures are saved, and lineage could not be told of it: %r", error)
