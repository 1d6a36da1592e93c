# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Wait for an image generation job."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    XComArg,
)

from pictory_provider.api.timing import TIMING
from pictory_provider.exceptions import PictoryJobCleaned, PictoryJobFailed, PictoryJobNotFound
from pictory_provider.links.pictory import PictoryJobLink
from pictory_provider.provider_info import DEFAULT_CONN_ID, DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT
from pictory_provider.telemetry import push_failure_xcom
from pictory_provider.version_compat import (
    AirflowRescheduleException,
    TaskDeferralError,
    TaskDeferralTimeout,
    airflow_minor,
    min_deferral,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.api.models import Job
    from pictory_provider.triggers.deferral import JobWait

_SKIPPED_BY_SOFT_FAIL = (
    AirflowSensorTimeout,
    AirflowTaskTimeout,
    PictoryJobFailed,
    PictoryJobCleaned,
    PictoryJobNotFound,
)


class PictoryJobSensor(BaseSensorOperator):
    """Wait until a Pictory job ends, and return its image record.

    The record is ``{"job_id", "status", "url", "width", "height", "ai_credits_used"}``, plain JSON, the same
    in every mode; a value that Pictory did not send is ``None``.

    All modes decide by the same rules (:mod:`pictory_provider.core.polling`) and count ``timeout`` in the same
    way: in wall-clock time from the start of the wait, also across a restart of the triggerer.

    :param job_id: the job to wait for, usually ``generate.output``. (templated)
    :param pictory_conn_id: the Airflow connection. (templated)
    :param deferrable: wait in the triggerer, without a worker slot. Wins over ``mode``.
    :param poke_interval: seconds, or a duration, between two polls. Pictory recommends 10 to 30 s.
    :param timeout: seconds, or a duration, of the whole wait.
    :param soft_fail: skip the task on a timeout (``execution_timeout`` too) and for a job that failed, was
        cleaned or does not exist; never for a bad key or a blocked client.
    :param never_fail: skip the task on any error.
    :param silent_fail: keep waiting after an unexpected error. Transient errors, such as a lost connection, never
        end the wait in any case.
    :param end_from_trigger: let a task that waits in the triggerer end there when its job is completed, without
        starting a worker again. Airflow then skips what a worker does at the end of a task (listeners,
        ``post_execute``). A task with outlets, an ``on_success_callback`` or ``multiple_outputs``, without XComs,
        or over whose result another task is mapped, still ends on a worker. So does a task that ends in any other
        way.
    :param start_from_trigger: start the task in the triggerer, so that a successful one needs no worker at all
        (Airflow 3.3). Implies ``end_from_trigger``. A mapped task, a task with an ``execution_timeout`` or an
        ``on_execute_callback``, and one whose ``job_id`` the triggerer cannot render start on a worker as usual.
    :param kwargs: every other argument of ``BaseSensorOperator``, with its usual meaning.
    :raises AirflowSensorTimeout: if the job is still running after ``timeout``; not retried.
    :raises PictoryJobFailed: if the job failed; not retried, since another poll would give the same answer.
    """

    template_fields: Sequence[str] = ("job_id", "pictory_conn_id")
    operator_extra_links = (PictoryJobLink(),)
    image_url: str | None = None
    ui_color = "#efe7fb"

    def __init__(
        self,
        *,
        job_id: str,
        pictory_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool = True,
        poke_interval: float | timedelta = DEFAULT_POLL_INTERVAL,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        end_from_trigger: bool = False,
        start_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        from pictory_provider.core.polling import deferral_timeout

        super().__init__(poke_interval=poke_interval, timeout=timeout, **kwargs)
        self.job_id = job_id
        self.pictory_conn_id = pictory_conn_id
        self.deferrable = deferrable
        self.end_from_trigger = end_from_trigger or start_from_trigger
        self._wants_start_from_trigger = start_from_trigger
        if start_from_trigger and (arguments := self._trigger_arguments()):
            from airflow.triggers.base import StartTriggerArgs

            self.start_from_trigger = True
            self.start_trigger_args = StartTriggerArgs(
                trigger_cls="pictory_provider.triggers.pictory.PictoryJobTrigger",
                trigger_kwargs=arguments,
                next_method="execute_complete",
                timeout=timedelta(seconds=deferral_timeout(self.timeout, self.poke_interval)),
            )

    @push_failure_xcom
    def execute(self, context: Context) -> dict[str, Any]:
        """Poll the job, wait in the task's mode, and return the image record."""
        from pictory_provider.version_compat import starts_from_trigger

        if self._wants_start_from_trigger and not starts_from_trigger():
            self.log.info(
                "Airflow %s cannot start a task in the triggerer (3.3 and later can). It starts on a worker.",
                airflow_minor(),
            )
        with self._airflow_errors():
            return self._finish(self._wait(self._begin(context)))

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once: done with the image record, not done, or the error that ends the wait.

        :meth:`execute` does not call this: its own loop also handles the deadline, grace periods and pauses. This
        is for users who call a sensor from their own code.
        """
        from pictory_provider.core.polling import Wait
        from pictory_provider.exceptions import airflow_errors
        from pictory_provider.hooks.pictory import PictoryHook
        from pictory_provider.services.polling import SyncWatcher

        with airflow_errors(), PictoryHook(self.pictory_conn_id) as hook:
            decision = SyncWatcher(self._begin(context).poller(), hook, log=self.log).poll()
            if isinstance(decision, Wait):
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=True, xcom_value=self._finish(decision.job()))

    @push_failure_xcom
    def execute_complete(self, context: Context, event: dict[str, Any] | str) -> dict[str, Any]:  # noqa: ARG002  Airflow calls it so
        """Resume after the trigger's event, and return the image record or raise the error of the job.

        :param event: of the trigger. ``dag.test()`` and ``airflow dags test`` pass ``"success"`` if the trigger
            has ended the task.
        """
        from pictory_provider.api.checks import check_job_id
        from pictory_provider.api.errors import Unavailable
        from pictory_provider.core import events
        from pictory_provider.triggers.deferral import conclude, last_poll

        with self._airflow_errors():
            if event == "success" and self.end_from_trigger:
                job_id = check_job_id(self.job_id)
                no_record = Unavailable(f"Job {job_id} was completed, but Pictory returns no record of it now.")
                return self._finish(last_poll(self.pictory_conn_id, job_id, no_record))
            job = conclude(
                events.read(event), pictory_conn_id=self.pictory_conn_id, poll_interval=self.poke_interval
            )
            self.log.info("Job %s is completed.", job.job_id)
            return self._finish(job)

    @push_failure_xcom
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral. If Airflow itself has ended the deferral, poll the job once more.

        This does not call ``BaseSensorOperator.resume_execution``, which skips the task for errors that
        ``soft_fail`` must not hide (apache/airflow#71255, #72053).
        """
        from pictory_provider.api.checks import check_job_id
        from pictory_provider.triggers.deferral import last_poll_after

        with self._airflow_errors():
            try:
                return super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)
            except (TaskDeferralTimeout, TaskDeferralError) as error:
                return self._finish(last_poll_after(error, self.pictory_conn_id, check_job_id(self.job_id)))

    def _begin(self, context: Context) -> JobWait:
        from pictory_provider.api.checks import check_job_id
        from pictory_provider.triggers.deferral import JobWait, warn_of_short_interval
        from pictory_provider.version_compat import has_mapped_dependants

        job_id = check_job_id(self.job_id)
        earlier = None
        if self.reschedule and not self.deferrable:
            earlier = context["ti"].get_first_reschedule_date(context)
        if earlier is None:
            warn_of_short_interval(self, "poke_interval", self.poke_interval)
        return JobWait(
            started_at=earlier.timestamp() if earlier else time.time(),
            **self._wait_arguments(
                job_id, end_from_trigger=self._may_end_in_trigger() and not has_mapped_dependants(self)
            ),
        )

    def _wait_arguments(self, job_id: str, *, end_from_trigger: bool) -> dict[str, Any]:
        """Return what a wait is made of, for :class:`JobWait` and for the trigger."""
        return {
            "job_id": job_id,
            "pictory_conn_id": self.pictory_conn_id,
            "poll_interval": self.poke_interval,
            "timeout": self.timeout,
            "exponential_backoff": self.exponential_backoff,
            "max_wait": None if self.max_wait is None else self.max_wait.total_seconds(),
            "silent_fail": self.silent_fail,
            "end_from_trigger": end_from_trigger,
        }

    def _may_end_in_trigger(self) -> bool:
        needs_worker = self.outlets or self.on_success_callback or not self.do_xcom_push or self.multiple_outputs
        return self.end_from_trigger and not needs_worker

    def _trigger_arguments(self) -> dict[str, Any] | None:
        """Return the trigger's arguments, if Airflow can start it without a worker; else ``None``."""
        from pictory_provider.version_compat import starts_from_trigger

        job_id = in_triggerer(self.job_id)
        if (
            job_id is None
            or in_triggerer(self.pictory_conn_id) is None
            or not starts_from_trigger()
            or not self.deferrable
            or not self._may_end_in_trigger()
            or self.on_execute_callback
            or self.execution_timeout
            or self.get_closest_mapped_task_group()
        ):
            return None
        return self._wait_arguments(job_id, end_from_trigger=True)

    def _wait(self, wait: JobWait) -> Job:
        from pictory_provider.core.polling import Wait
        from pictory_provider.hooks.pictory import PictoryHook
        from pictory_provider.services.polling import SyncWatcher

        with PictoryHook(self.pictory_conn_id) as hook:
            watcher = SyncWatcher(wait.poller(), hook, log=self.log, silent_fail=self.silent_fail)
            while isinstance(decision := watcher.poll(), Wait):
                if self.deferrable:
                    wait.defer(self, decision.seconds)
                if self.reschedule and not decision.stay_in_process:
                    raise _reschedule_in(decision.seconds)
                time.sleep(decision.seconds)
        return decision.job()

    def _finish(self, job: Job) -> dict[str, Any]:
        self.image_url = job.url
        return job.record()

    @contextmanager
    def _airflow_errors(self) -> Iterator[None]:
        """Turn an error into Airflow's, or into a skip, in the same way in every mode."""
        from pictory_provider.api.text import urls

        try:
            yield
        except (AirflowSkipException, AirflowRescheduleException):
            raise
        except (Exception, AirflowTaskTimeout) as error:
            raised = self._as_airflow_error(error)
            if self.never_fail or (self.soft_fail and isinstance(raised, _SKIPPED_BY_SOFT_FAIL)):
                which = "never_fail" if self.never_fail else "soft_fail"
                raise AirflowSkipException(f"Skipped, because {which} is set. {raised}") from error
            if raised is error:
                raise
            for url in urls(str(raised)):
                self.log.warning("See %s", url)
            raise raised.with_traceback(None) from None

    def _as_airflow_error(self, error: BaseException) -> BaseException:
        from pictory_provider.api.errors import PictoryError, WaitTimeout
        from pictory_provider.api.text import wrap_sentences
        from pictory_provider.exceptions import as_airflow_error

        if isinstance(error, WaitTimeout):
            not_retried = "Airflow does not retry this task, because it never retries a sensor that has timed out."
            return AirflowSensorTimeout(
                wrap_sentences(f"{error.message}\n{not_retried}", after="AirflowSensorTimeout: ")
            )
        if isinstance(error, PictoryError):
            return as_airflow_error(error, self.pictory_conn_id)
        return error


_PULLED = r"(?:task_ids|key)\s*=\s*(?:'[^'{}]*'|\"[^\"{}]*\")"
_INDEX = r"map_indexes\s*=\s*-?\d+"
_WORKS_IN_TRIGGERER = re.compile(
    r"\{\{-?\s*(?:"
    rf"(?:ti|task_instance)\.xcom_pull\(\s*(?:{_PULLED}\s*,\s*)*{_INDEX}\s*(?:,\s*{_PULLED}\s*)*\)"
    r"|(?:params|dag_run\.conf)(?:\.\w+|\[['\"][^'\"{}]*['\"]\]|\.get\(['\"][^'\"{}]*['\"]\))"
    r")\s*-?\}\}"
)


def in_triggerer(value: Any) -> str | None:
    """Return an argument in a form that the triggerer can render; ``None`` if there is none.

    The triggerer does not resolve a reference to another task's XCom, and ``xcom_pull`` without a map index makes
    the trigger hang forever (Airflow 3.3.2). With a map index it works. So this accepts only templates that are
    known to work: pulls with a map index, ``params`` and ``dag_run.conf``.
    """
    if isinstance(value, XComArg):
        upstream, key = getattr(value, "operator", None), getattr(value, "key", None)
        if upstream is None or key is None or upstream.is_mapped or upstream.get_closest_mapped_task_group():
            return None
        return f"{{{{ ti.xcom_pull(task_ids={upstream.task_id!r}, key={key!r}, map_indexes=-1) }}}}"
    if not isinstance(value, str):
        return None
    plain = _WORKS_IN_TRIGGERER.sub("", value)
    return None if "{{" in plain or "{%" in plain or "{#" in plain else value


def _reschedule_in(pause: float) -> AirflowRescheduleException:
    at = pendulum.now("UTC") + timedelta(
        seconds=max(pause, min_deferral(TIMING.min_deferral, is_rescheduled=True))
    )
    return AirflowRescheduleException(at)  # type: ignore[no-untyped-call]
