# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""All waiting times of the provider."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Timing:
    """All waiting times, in seconds.

    Pictory's documentation names only ``poll_interval_recommended``; the other values are ours. Modules read them
    when they need them and keep no copy, so a test can change :data:`TIMING`.

    :param backoff_first: wait before the first retry of a request. Each further wait is twice as long.
    :param backoff_max: longest wait between two retries, unless Pictory asks for more.
    :param read_budget: time that one reading request may spend on its retries.
    :param resend_budget: time that one submission may spend on its retries.
    :param send_delay: longest time between building a paid request and sending it. A later one is not sent: if the
        process was frozen, another attempt may have sent its own.
    :param download: timeout of the download of one picture, from the first byte to the last.
    :param credits: timeout of the request for the used credits, before each submission.
    :param evidence: timeout of all requests about an unknown outcome together.
    :param account_usage: timeout of each request for the account's figures on Airflow's pages.
    :param poll_interval_min: shortest interval between two polls of one job, whatever a task sets.
    :param poll_interval_recommended: shortest interval that Pictory recommends, of 10 to 30
        (guides/ai-studio/text-to-image).
    :param poll_pause_max: longest pause of all polls after one ``Retry-After``; the next refusal pauses them
        again. It is shorter than :data:`pictory_provider.core.polling.DEFERRAL_SLACK`, so the last poll still
        comes before Airflow ends the deferral.
    :param url_fresh: age up to which the URL of a picture is used without requesting a new one. Pictory does not
        say how long a URL is valid; if its host refuses it, a new one is requested.
    :param unknown_job: time from the start of a wait in which Pictory may not know its own job yet.
    :param missing_url: time in which a completed job may still lack its URL.
    :param resume_after: time from the first finished job of a batch until a worker resumes to save it.
    :param progress_interval: shortest time between two reports of a batch's progress.
    :param record_retries: waits between the attempts to write a record that must not be lost.
    :param second_looks: waits for other tasks that have begun at the same moment as a batch, before it looks again
        whether they have left its file names.
    :param wave_grace: time that a task which has to end waits for its open requests.
    :param lock: time that a task waits for the lock on a folder. The lock is held while one small file is written.
    :param lock_warning: time after which the log says that the task waits for the lock.
    :param min_deferral: shortest time between a task's leaving its worker and its return, on releases of Airflow
        that may lose a task sooner (:func:`pictory_provider.version_compat.min_deferral`).
    :param ownership: age up to which a check that the batch still belongs to this attempt is trusted. If a process
        was frozen for longer, another attempt may have taken over its batch, and may be submitting the same rows.
    """

    backoff_first: float = 1.0
    backoff_max: float = 300.0
    read_budget: float = 20.0
    resend_budget: float = 60.0
    send_delay: float = 30.0
    download: float = 600.0
    credits: float = 5.0
    evidence: float = 10.0
    account_usage: float = 5.0
    poll_interval_min: float = 1.0
    poll_interval_recommended: float = 10.0
    poll_pause_max: float = 120.0
    url_fresh: float = 300.0
    unknown_job: float = 60.0
    missing_url: float = 60.0
    resume_after: float = 60.0
    progress_interval: float = 5.0
    record_retries: tuple[float, ...] = (0.5, 2.0, 5.0)
    second_looks: tuple[float, ...] = (0.2, 0.8, 3.0)
    wave_grace: float = 30.0
    lock: float = 60.0
    lock_warning: float = 5.0
    min_deferral: float = 8.0
    ownership: float = 1.0


TIMING = Timing()
"""The waiting times in use."""
