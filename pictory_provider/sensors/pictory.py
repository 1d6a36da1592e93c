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

from pictory_provider.api.checks import check_job_id
from pictory_provider.api.errors import PictoryError, Unavailable, WaitTimeout
from pictory_provider.api.wording import laid_out, urls
from pictory_provider.compat import (
    AirflowRescheduleException,
    TaskDeferralError,
    TaskDeferralTimeout,
    airflow_line,
    has_mapped_dependants,
    shortest_absence,
    starts_from_trigger,
)
from pictory_provider.exceptions import (
    PictoryJobCleaned,
    PictoryJobFailed,
    PictoryJobNotFound,
    airflow_errors,
    as_airflow_error,
)
from pictory_provider.jobs import events
from pictory_provider.jobs.polling import DEFAULT_POLL_INTERVAL, DEFAULT_TIMEOUT, Wait, deferral_timeout
from pictory_provider.links.pictory import PictoryJobLink
from pictory_provider.looking import Watch
from pictory_provider.provider_info import DEFAULT_CONN_ID
from pictory_provider.telemetry import tells_why
from pictory_provider.waiting import JobWait, conclude, ended_by_airflow, late_look, warn_if_impolite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.api.models import Job

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
    in every mode; what Pictory did not say is ``None``.

    All modes share one verdict (:mod:`pictory_provider.jobs.polling`) and one clock: ``timeout`` counts on
    the wall from the start of the wait, also across a restart of the triggerer.

    :param job_id: the job to wait for, usually ``generate.output``. (templated)
    :param pictory_conn_id: the Airflow connection. (templated)
    :param deferrable: wait in the triggerer, without a worker slot. Wins over ``mode``.
    :param poke_interval: seconds, or a duration, between two looks. Pictory recommends 10 to 30 s.
    :param timeout: seconds, or a duration, to wait in all.
    :param soft_fail: skip the task on a timeout (``execution_timeout`` too) and for a job that failed, was
        cleaned or does not exist; never for a bad key or a blocked client.
    :param never_fail: skip the task on any error.
    :param silent_fail: go on waiting after an error that nobody foresaw. Errors that pass, such as a lost
        connection, never end the wait in any case.
    :param end_from_trigger: let a task that waited in the triggerer end there when its job is completed, without
        starting a worker again. Airflow then runs nothing of what belongs to a worker's end (listeners,
        ``post_execute``). A task with outlets, an ``on_success_callback`` or ``multiple_outputs``, without XComs,
        or over whose result another task is mapped, ends on a worker all the same. Every other ending takes a
        worker, too.
    :param start_from_trigger: begin in the triggerer, so that no worker is started at all where all goes well
        (Airflow 3.3). Implies ``end_from_trigger``. A mapped task, one with an ``execution_timeout`` or an
        ``on_execute_callback``, and a ``job_id`` that the triggerer cannot render begin on a worker as usual.
    :param kwargs: every other argument of ``BaseSensorOperator``, with its usual meaning.
    :raises AirflowSensorTimeout: where the job is still running after ``timeout``; not retried.
    :raises PictoryJobFailed: where the job failed; not retried, since looking again changes nothing.
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
        super().__init__(poke_interval=poke_interval, timeout=timeout, **kwargs)
        self.job_id = job_id
        self.pictory_conn_id = pictory_conn_id
        self.deferrable = deferrable
        self.end_from_trigger = end_from_trigger or start_from_trigger
        self._is_to_start_there = start_from_trigger
        if start_from_trigger and (arguments := self._trigger_arguments()):
            from airflow.triggers.base import StartTriggerArgs

            self.start_from_trigger = True
            self.start_trigger_args = StartTriggerArgs(
                trigger_cls="pictory_provider.triggers.pictory.PictoryJobTrigger",
                trigger_kwargs=arguments,
                next_method="execute_complete",
                timeout=timedelta(seconds=deferral_timeout(self.timeout, self.poke_interval)),
            )

    @tells_why
    def execute(self, context: Context) -> dict[str, Any]:
        """Look, and wait in the way that the task asks for."""
        if self._is_to_start_there and not starts_from_trigger():
            self.log.info(
                "Airflow %s starts no task in the triggerer (3.3 and later do): this wait begins on a worker.",
                airflow_line(),
            )
        with self._own_ending():
            return self._finish(self._wait(self._begin(context)))

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once: done with the image record, not done, or the error that ends the wait.

        :meth:`execute` has a loop of its own, which knows deadline, graces and pauses. This is for those who ask a
        sensor from their own code.
        """
        from pictory_provider.hooks.pictory import PictoryHook

        with airflow_errors(), PictoryHook(self.pictory_conn_id) as hook:
            decision = Watch(self._begin(context).poller(), hook, log=self.log).look()
            if isinstance(decision, Wait):
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=True, xcom_value=self._finish(decision.job()))

    @tells_why
    def execute_complete(self, context: Context, event: dict[str, Any] | str) -> dict[str, Any]:  # noqa: ARG002  Airflow calls it so
        """Go on after the trigger's event.

        ``dag.test()`` and ``airflow dags test`` hand over a word where the trigger has ended the task.
        """
        with self._own_ending():
            if event == "success" and self.end_from_trigger:
                job_id = check_job_id(self.job_id)
                unsaid = Unavailable(f"Job {job_id} was completed, and Pictory gives no record of it now.")
                return self._finish(late_look(self.pictory_conn_id, job_id, unsaid))
            job = conclude(
                events.read(event), pictory_conn_id=self.pictory_conn_id, poll_interval=self.poke_interval
            )
            self.log.info("Job %s is completed.", job.job_id)
            return self._finish(job)

    @tells_why
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral; one that Airflow itself ended badly gets a late look at the job.

        The base class is passed over on purpose: it skips on errors that ``soft_fail`` must not hide
        (apache/airflow#71255, #72053).
        """
        with self._own_ending():
            try:
                return super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)
            except (TaskDeferralTimeout, TaskDeferralError) as error:
                job_id = check_job_id(self.job_id)
                ended = ended_by_airflow(job_id, error) if isinstance(error, TaskDeferralTimeout) else error
                return self._finish(late_look(self.pictory_conn_id, job_id, ended))

    def _begin(self, context: Context) -> JobWait:
        job_id = check_job_id(self.job_id)
        earlier = None
        if self.reschedule and not self.deferrable:
            earlier = context["ti"].get_first_reschedule_date(context)
        if earlier is None:
            warn_if_impolite(self, "poke_interval", self.poke_interval)
        return JobWait(
            job_id=job_id,
            pictory_conn_id=self.pictory_conn_id,
            started_at=earlier.timestamp() if earlier else time.time(),
            timeout=self.timeout,
            poll_interval=self.poke_interval,
            exponential_backoff=self.exponential_backoff,
            max_wait=self._max_wait(),
            silent_fail=self.silent_fail,
            end_from_trigger=self._may_end_in_trigger() and not has_mapped_dependants(self),
        )

    def _may_end_in_trigger(self) -> bool:
        return (
            self.end_from_trigger
            and not self.outlets
            and not self.on_success_callback
            and self.do_xcom_push
            and not self.multiple_outputs
        )

    def _trigger_arguments(self) -> dict[str, Any] | None:
        """Return the arguments with which Airflow itself may start the trigger; ``None`` where it cannot."""
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
        return {
            "job_id": job_id,
            "pictory_conn_id": self.pictory_conn_id,
            "poll_interval": self.poke_interval,
            "timeout": self.timeout,
            "exponential_backoff": self.exponential_backoff,
            "max_wait": self._max_wait(),
            "silent_fail": self.silent_fail,
            "end_from_trigger": True,
        }

    def _max_wait(self) -> float | None:
        return self.max_wait.total_seconds() if self.max_wait is not None else None

    def _wait(self, wait: JobWait) -> Job:
        from pictory_provider.hooks.pictory import PictoryHook

        with PictoryHook(self.pictory_conn_id) as hook:
            watch = Watch(wait.poller(), hook, log=self.log, silent_fail=self.silent_fail)
            while isinstance(decision := watch.look(), Wait):
                if self.deferrable:
                    wait.defer(self, decision.seconds)
                if self.reschedule and not decision.stay_in_process:
                    raise _come_back_in(decision.seconds)
                time.sleep(decision.seconds)
        return decision.job()

    def _finish(self, job: Job) -> dict[str, Any]:
        self.image_url = job.url
        return job.record()

    @contextmanager
    def _own_ending(self) -> Iterator[None]:
        """End the task in the same way in every mode: as Airflow's error, or skipped."""
        try:
            yield
        except (AirflowSkipException, AirflowRescheduleException):
            raise
        except (Exception, AirflowTaskTimeout) as error:
            ending = self._as_airflow_says(error)
            if self.never_fail or (self.soft_fail and isinstance(ending, _SKIPPED_BY_SOFT_FAIL)):
                which = "never_fail" if self.never_fail else "soft_fail"
                raise AirflowSkipException(f"Skipped, because {which} is set. {ending}") from error
            if ending is error:
                raise
            for url in urls(str(ending)):
                self.log.warning("See %s", url)
            raise ending.with_traceback(None) from None

    def _as_airflow_says(self, error: BaseException) -> BaseException:
        if isinstance(error, WaitTimeout):
            not_retried = "Airflow does not retry this task: no sensor is, once it has timed out."
            return AirflowSensorTimeout(
                laid_out(f"{error.message}\n{not_retried}", after="AirflowSensorTimeout: ")
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
    """Return what the triggerer can make an argument of; ``None`` where it cannot.

    A reference to another task's XCom arrives there as an object that nothing resolves, and ``xcom_pull``
    without a map index asks for a slice, which hangs the trigger for ever (3.3.2). With one it works. So only
    those templates are let through that are known to work: pulls of that form, ``params`` and ``dag_run.conf``.
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


def _come_back_in(pause: float) -> AirflowRescheduleException:
    at = pendulum.now("UTC") + timedelta(seconds=max(pause, shortest_absence(is_rescheduled=True)))
    return AirflowRescheduleException(at)  # type: ignore[no-untyped-call]
