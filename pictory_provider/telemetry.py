# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Report to metrics, lineage, assets and Airflow's pages.

A failure here is logged and never fails the task: it must not cost a picture, or the jobId of a paid job.
"""

from __future__ import annotations

import inspect
import logging
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from airflow.providers.common.compat.sdk import AirflowTaskTimeout, Stats

from pictory_provider.api.checks import without_query
from pictory_provider.api.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow.providers.common.compat.sdk import BaseHook, Context
    from airflow.providers.openlineage.extractors import OperatorLineage

    from pictory_provider.api.models import Job

log = logging.getLogger(__name__)

REQUEST_KEY = "pictory_request"
"""The XCom from which Airflow's pages show a picture while it is generated."""
FAILURE_KEY = "pictory_failure"
"""The XCom with the reason why a task failed or was skipped, and with its request. Airflow itself keeps the reason
only in the log."""
_LONGEST_TEXT = 5_000
_P = ParamSpec("_P")
_R = TypeVar("_R")
_debug = partial(log.debug, exc_info=True)


@contextmanager
def _errors_logged(write: Callable[..., object], text: str, *args: object) -> Iterator[None]:
    """Log an error of the block instead of raising it."""
    try:
        yield
    except Exception as error:
        write(f"{text}: %r", *args, error)


def push_request_xcom(context: Any, submission: Any, *, is_waited_for: bool, candidates: int = 1) -> None:
    """Push the request as an XCom for Airflow's pages.

    :param submission: the recorded :class:`pictory_provider.core.submission.Submission`.
    :param is_waited_for: whether the task waits for the picture, and then pushes the image record too.
    :param candidates: how many pictures of the request the task generates.
    """
    request = submission.request or {}
    value = {"job_id": submission.job_id, "submitted_at": submission.submitted_at, "is_waited_for": is_waited_for}
    value |= {name: request.get(name) for name in ("prompt", "model", "aspectRatio")}
    model = MODELS.get(str(value["model"]))
    if candidates > 1:
        value["candidates"] = candidates
    with _errors_logged(_debug, "Could not push the XCom of the request"):
        context["ti"].xcom_push(key=REQUEST_KEY, value={**value, "credits": model.credits if model else None})


def push_failure_xcom(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate an operator's method that takes ``context``: push the reason of a failure as an XCom for the pages.

    A retry clears the XCom, as all XComs of the previous attempt.
    """
    position = list(inspect.signature(method).parameters).index("context")

    @wraps(method)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(*args, **kwargs)
        except (Exception, AirflowTaskTimeout) as error:
            # A deferral is a BaseException. A rescheduled wait has not failed.
            if type(error).__name__ != "AirflowRescheduleException":
                context = kwargs.get("context", args[position] if len(args) > position else None)
                _push_failure(args[0], context, error)
            raise

    return wrapper


def _push_failure(operator: Any, context: Any, error: BaseException) -> None:
    text = str(getattr(error, "message", None) or error).strip()
    value = {"error": type(error).__name__, "message": text[:_LONGEST_TEXT]}
    for name in ("prompt", "model", "job_id"):
        if isinstance(field := getattr(operator, name, None), str):
            value[name] = field[:_LONGEST_TEXT]
    with _errors_logged(_debug, "Could not push the XCom of the failure"):
        context["ti"].xcom_push(key=FAILURE_KEY, value=value)


def count(name: str, **kwargs: Any) -> None:
    """Increment a metric with ``Stats.incr``. An error of its backend is logged."""
    with _errors_logged(_debug, "Could not count %s", name):
        Stats.incr(name, **kwargs)


def report_assets(context: Context, outlets: Sequence[Any], record: Mapping[str, Any]) -> None:
    """Add the image record, without its URL's query, to the ``extra`` of the asset events of a task's outlets.

    Candidates have a list of records, as ``images``.

    https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/assets.html
    """
    extra: dict[str, Any] = _without_query(record)
    if "images" in extra:
        extra["images"] = [_without_query(image) for image in extra["images"]]
    for outlet in outlets:
        with _errors_logged(log.warning, "The picture is saved, but the event of %r lacks its record", outlet):
            context["outlet_events"][outlet].extra.update(extra)


def _without_query(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, "url": without_query(record["url"])} if "url" in record else dict(record)


def openlineage_of(inputs: Sequence[str | None], outputs: Sequence[str | None]) -> OperatorLineage[Any, Any]:
    """Return the lineage of a task for OpenLineage.

    https://airflow.apache.org/docs/apache-airflow-providers-openlineage/stable/guides/developer.html

    :param inputs: absolute local paths and URLs; ``None`` is left out.
    :param outputs: the same.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(
        inputs=[Dataset(*dataset_name(place)) for place in inputs if isinstance(place, str)],
        outputs=[Dataset(*dataset_name(place)) for place in outputs if isinstance(place, str)],
    )


def dataset_name(place: str) -> tuple[str, str]:
    """Return OpenLineage's namespace and name of a path or URL (https://openlineage.io/docs/spec/naming).

    The name is not encoded. The query of an ``http(s)`` URL is left out: it may be a key to the picture.
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
    """Add the job's picture as an input and the written file as an output to the hook's lineage."""
    from airflow.providers.common.compat.sdk import get_hook_lineage_collector

    with _errors_logged(hook.log.warning, "The picture is saved, but its lineage could not be reported"):
        get_hook_lineage_collector().add_input_asset(context=hook, uri=str(without_query(job.url)))
        get_hook_lineage_collector().add_output_asset(context=hook, uri=uri)


def report_output(hook: BaseHook, uri: str) -> None:
    """Add a batch's folder as an output to the hook's lineage. Airflow keeps at most 100 assets."""
    from airflow.providers.common.compat.sdk import get_hook_lineage_collector

    with _errors_logged(hook.log.warning, "The pictures are saved, but their lineage could not be reported"):
        get_hook_lineage_collector().add_output_asset(context=hook, uri=uri)
