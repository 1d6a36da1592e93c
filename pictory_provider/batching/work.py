# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Carry out a batch: one leg of it, from a worker's waking to its next deferral, or to the end.

What is next is decided in :mod:`pictory_provider.batch.plan`. Whatever fails here leaves the record behind, so a
retry finds every job that was bought.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from airflow.providers.common.compat.sdk import AirflowException, AirflowTaskTimeout

from pictory_provider.api.errors import RequestInvalid, StorageFailed
from pictory_provider.batch.decision import Place
from pictory_provider.batch.opening import Start
from pictory_provider.batch.plan import WAVE, Plan
from pictory_provider.batch.progress import line
from pictory_provider.batch.steps import Buy, Wait
from pictory_provider.batch.tables import read_table, records_of, table_path
from pictory_provider.batching.delivery import Delivery
from pictory_provider.batching.ending import error_of, is_final, write_manifest
from pictory_provider.batching.folder import Folder, read_file
from pictory_provider.batching.limit import Limit
from pictory_provider.batching.record import BatchRecord
from pictory_provider.batching.telling import Teller
from pictory_provider.batching.turns import PacedClient, Turns
from pictory_provider.batching.wave import Wave
from pictory_provider.jobs.budget import Lot
from pictory_provider.jobs.news import Sparing
from pictory_provider.telemetry import count, report_output

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from pictory_provider.batch.rows import Row, RowMaker
    from pictory_provider.batch.seen import Seen
    from pictory_provider.batching.saving import HowTo
    from pictory_provider.hooks.pictory import PictoryHook

_MOST_BYTES = 60_000
"""Of the jobs in a trigger's arguments: MySQL keeps 64 kB of these. Jobs beyond wait for the next deferral."""
_BYTES_BESIDE = 16
"""Of a job's deadline, and of what parts it from the next."""


class Wish(NamedTuple):
    """What the operator asks for.

    :param max_credits: the most that the task may spend; ``None`` for no limit.
    :param resubmit: buy again, once a try, what may or may not have been bought.
    :param is_deferrable: give the worker away while jobs run.
    """

    requests: Any
    path: Any
    rows: RowMaker
    how: HowTo
    max_in_flight: int
    max_credits: float | None
    fail_on_partial_error: bool
    resubmit: bool
    is_deferrable: bool


class Deferral(NamedTuple):
    """Wait in the triggerer for some of these jobs.

    :param job_ids: in the order of their submission.
    :param end_times: epoch seconds of the deadline of each.
    :param progress: how far the batch is.
    :param folder: where its record lies.
    """

    job_ids: list[str]
    end_times: list[int]
    progress: dict[str, Any]
    folder: str


class Batch:
    """One leg of a batch.

    :param retries: of the task.
    :param ends_at: on the monotonic clock; nothing is bought from then on.
    """

    def __init__(
        self,
        wish: Wish,
        context: Context,
        hook: PictoryHook,
        *,
        retries: int | None,
        ends_at: float | None,
        log: Any,
    ) -> None:
        self._wish = wish
        self._context = context
        self._hook = hook
        self._ends_at = ends_at
        self._log = log
        self._quiet = Sparing(log)
        self._no_more = threading.Event()
        self._is_killed = False
        self._pool = ThreadPoolExecutor(WAVE, thread_name_prefix="pictory-buy")
        self._delivery: Delivery | None = None
        self._record = BatchRecord(Folder(wish.path), context, retries=retries)
        self._clients: list[PacedClient] = []
        self._turns: Turns | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        self._no_more.set()
        # Whoever has failed does not wait for downloads: they are free, and what they save is found by the next.
        self._pool.shutdown(wait=error is None, cancel_futures=True)
        if self._delivery:
            self._delivery.close(is_patient=error is None)
        for client in self._clients:
            client.close()

    def kill(self) -> None:
        """Buy nothing more, as soon as possible."""
        self._is_killed = True
        self._no_more.set()

    def run(
        self, *, is_leg: bool, seen: Seen | None = None, folder: str | None = None
    ) -> Deferral | dict[str, Any]:
        """Work until nothing can be done but wait, or until the end.

        :param is_leg: whether this is the same try after a deferral.
        :param seen: what the trigger has seen that woke this worker.
        :param folder: where the record lies, as far as is known.
        :return: the task's result, or what to wait for.
        """
        opening = self._record.open(
            self._table(is_leg=is_leg), is_leg=is_leg, conn_id=self._wish.how.conn_id, kept_in=folder
        )
        found, unmarked = self._folder.found(row.file_name for row in opening.rows)
        plan = Plan(
            opening,
            found,
            overwrite=self._wish.how.overwrite,
            resubmit=self._wish.resubmit,
            max_in_flight=self._wish.max_in_flight,
        )
        del found
        limit = Limit(
            plan,
            self._wish.max_credits,
            dag_id=self._record.me.dag_id,
            log=self._log,
        )
        self._record.write(plan.journal)
        try:
            self._say_what_is_found(plan, opening.start, opening.warning)
            teller = Teller(self._context["ti"], plan, self._folder, self._log, is_leg=is_leg)
            self._delivery = delivery = Delivery(
                plan,
                self._record,
                self._folder,
                self._wish.how,
                seen=seen,
                can_defer=self._wish.is_deferrable,
                renew=self._new_client,
                on_saved=teller.saved,
                log=self._log,
                quiet=self._quiet,
            )
            if self._wish.how.mark_ai_generated and not is_leg:
                delivery.mark(unmarked)
            if not is_leg:
                limit.check(delivery.client)
                if plan.error:
                    self._log.warning("Nothing is bought: %s", plan.error.message)
            waited = self._carry_out(plan, delivery, teller, limit)
            self._quiet.sum_up()
            if waited:
                self._record.write(plan.journal)
                return self._deferral(waited, teller.all())
            return self._finish(plan, delivery, teller)
        except BaseException as error:
            self._after_failure(plan, error)
            raise

    @property
    def _folder(self) -> Folder:
        return self._record.folder

    def _table(self, *, is_leg: bool) -> list[Row] | RequestInvalid | StorageFailed:
        """Return the rows; or what is wrong with them, which keeps nobody from saving what is paid for.

        :param is_leg: whether this try has tried the names already.
        """
        requests = self._wish.requests
        try:
            path = table_path(requests)
            records = records_of(requests) if path is None else read_table(path, read_file(path))
            refused = partial(self._folder.refused, overwrite=self._wish.how.overwrite)
            return self._wish.rows.rows(records, None if is_leg else refused)
        except (RequestInvalid, StorageFailed) as error:
            return error

    def _say_what_is_found(self, plan: Plan, start: Start, warning: str | None) -> None:
        log, counts = self._log, plan.counts
        if warning:
            log.warning("%s", warning)
        if start is Start.LEG:
            return
        kind = {
            Start.FIRST: "A new batch",
            Start.RETRY: "A retry, which buys what was never sent",
            Start.CLEAR: "The task was cleared: what has failed or is unknown is bought, too",
            Start.OTHER: "The folder has a record of another run: what lies there is taken",
        }[start]
        log.info("%s, in %s: %s pictures.", kind, self._folder.path, f"{plan.of:,}")
        price = Lot(tuple(row.request for row in plan.missing)).price
        told = "at a price that is not listed" if price is None else f"for {price:,.10g} AI credits as listed"
        log.info(
            "%s are missing, %s. %s lie there already, and %s jobs are on record and adopted.",
            f"{counts[Place.TO_DO]:,}",
            told,
            f"{counts[Place.REUSED] + counts[Place.SAVED]:,}",
            f"{counts[Place.WAITING]:,}",
        )
        for name, place in (("pictory.reused", Place.REUSED), ("pictory.adopted", Place.WAITING)):
            if counts[place]:
                count(name, count=counts[place])

    def _carry_out(self, plan: Plan, delivery: Delivery, teller: Teller, limit: Limit) -> Wait | None:
        """Do what is next until there is nothing left, or nothing but to wait in the triggerer.

        Looks and downloads go on in their threads while a wave is bought.
        """
        told = plan.error
        while True:
            self._between(plan, teller)
            delivery.go_on()
            step = plan.next()
            if isinstance(step, Buy):
                purchases = limit.take(delivery.client, step.rows)
                if purchases is not None:
                    self._wave(plan, delivery).buy(step, purchases)
                    limit.settle(step.rows, purchases)
                if plan.error and not told:
                    told = plan.error
                    self._log.warning("Purchases have stopped: %s", told.message)
            elif delivery.is_busy:
                delivery.wait()
            elif step is None:
                return None
            elif self._wish.is_deferrable and not delivery.is_worth_staying:
                return step
            else:
                self._sleep(plan, delivery.next_look_at, teller)

    def _finish(self, plan: Plan, delivery: Delivery, teller: Teller) -> dict[str, Any]:
        manifest = write_manifest(plan, self._folder)
        now = teller.all()
        teller.lost()
        result = {**now, "manifest": manifest}
        error = error_of(
            plan,
            self._folder,
            delivery.client.settings,
            fail_on_partial_error=self._wish.fail_on_partial_error,
            log=self._log,
        )
        report_output(self._hook, self._folder.uri)
        self._log.info("%s. The manifest is %s.", line(now), manifest)
        if error is not None:
            raise error
        self._record.end(plan.journal)
        return result

    def _after_failure(self, plan: Plan, error: BaseException) -> None:
        """Leave the record as it is known here, and say on it whether this try was the last."""
        if is_final(error) or self._record.is_last_try:
            plan.journal.set_header(has_ended=True)
        try:
            self._record.write(plan.journal)
        except Exception as unwritten:
            self._log.warning("The record of the batch stays as it was written last: %r", unwritten)

    def _wave(self, plan: Plan, delivery: Delivery) -> Wave:
        assert self._turns is not None
        return Wave(
            plan,
            self._record,
            delivery.client,
            self._turns,
            self._pool,
            ends_at=self._ends_at,
            no_more=self._no_more,
            log=self._log,
            quiet=self._quiet,
        )

    def _new_client(self) -> PacedClient:
        """Read the Airflow connection, anew where it was read before."""
        if self._clients:
            self._hook.close()  # so that it is looked up again
        settings = self._hook.get_conn().settings
        self._turns = self._turns or Turns(settings.requests_per_second)
        self._clients.append(PacedClient(settings, self._turns))
        return self._clients[-1]

    def _between(self, plan: Plan, teller: Teller) -> None:
        self._check_time()
        if self._record.is_due(plan.journal):
            self._record.write(plan.journal)
        teller.tick()

    def _check_time(self) -> None:
        if self._is_killed:
            raise AirflowException(
                "The task was ended from outside. Its jobs run on at Pictory, and are on record."
            )
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            raise AirflowTaskTimeout("The task's execution_timeout is over")

    def _sleep(self, plan: Plan, until: float, teller: Teller) -> None:
        while (left := until - time.time()) > 0:
            self._between(plan, teller)
            time.sleep(min(left, 1.0))

    def _deferral(self, waited: Wait, progress: dict[str, Any]) -> Deferral:
        now, timeout, left = time.time(), self._wish.how.timeout, _MOST_BYTES
        job_ids, end_times = [], []
        for _, job_id, submitted_at in waited.tickets:
            left -= len(json.dumps(job_id)) + _BYTES_BESIDE
            if left < 0:
                break
            job_ids.append(job_id)
            end_times.append(round((now if submitted_at is None else submitted_at) + timeout))
        return Deferral(job_ids, end_times, progress, self._folder.path)
