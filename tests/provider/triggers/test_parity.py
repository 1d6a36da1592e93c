# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""For every way to wait and every outcome of a job: the same decision, the same exception, the same XCom."""

from __future__ import annotations

import itertools
import json
import time
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from pictory_provider.api.models import Job
from pictory_provider.core import events
from pictory_provider.exceptions import (
    PictoryAuthenticationError,
    PictoryEdgeBlocked,
    PictoryJobCleaned,
    PictoryJobFailed,
    PictoryJobNotFound,
    PictoryProtocolError,
    PictoryRequestInvalid,
    PictoryWaitTimeout,
)
from pictory_provider.hooks.pictory import PictoryHook
from pictory_provider.operators.pictory import GenerateImageOperator
from pictory_provider.sensors.pictory import PictoryJobSensor
from pictory_provider.simulator import Simulator
from tests.driver import events_of, to_its_end
from tests.provider.waits import SENSOR_WAYS, buy, trigger

OPERATOR_WAYS = {"operator waits": {"deferrable": False}, "operator defers": {"deferrable": True}}
SENSOR_OPTIONS = ("none", "soft_fail", "never_fail", "silent_fail", "exponential_backoff")
WAYS = [*itertools.product(SENSOR_WAYS, SENSOR_OPTIONS), *((way, "none") for way in OPERATOR_WAYS)]

TIMEOUT = {PictoryJobSensor: AirflowSensorTimeout, GenerateImageOperator: PictoryWaitTimeout}
OUTCOMES = {
    # outcome: (the end of the job, a fault at each poll, the error, whether soft_fail skips it)
    "completed": ({}, None, None, None),
    "failed": ({"fate": "failed", "error_code": "POLICY"}, None, PictoryJobFailed, True),
    "cleaned": ({"fate": "cleaned"}, None, PictoryJobCleaned, True),
    "missing": ({"missing_seconds": 9_999}, None, PictoryJobNotFound, True),
    "unknown status": ({"fate": "unknown-status"}, None, TIMEOUT, True),
    "timeout": ({"fate": "stuck"}, None, TIMEOUT, True),
    "out of reach": ({}, "server-error", TIMEOUT, True),
    "no URL": ({"fate": "no-url"}, None, PictoryProtocolError, False),
    "401": ({}, "unauthorized", PictoryAuthenticationError, False),
    "edge block": ({}, "edge-block", PictoryEdgeBlocked, False),
}


@pytest.fixture(autouse=True)
def _quick(timing):
    """Let tasks be rescheduled immediately, and set all grace periods to 0."""
    timing(min_deferral=0, unknown_job=0.04, missing_url=0.04)


def wait(pictory, context, way, option, plan, fault):
    """Let a task wait in one way, and return its image record."""
    if fault:
        pictory.script("job", fault, times=-1)
    options = {"timeout": 0.05, **({} if option == "none" else {option: True})}
    if way in SENSOR_WAYS:
        job_id = buy(pictory, **plan)
        sensor = PictoryJobSensor(task_id="wait", job_id=job_id, poke_interval=0.02, **SENSOR_WAYS[way], **options)
        return to_its_end(sensor, context)
    pictory.plan(**plan)
    operator = GenerateImageOperator(
        task_id="generate",
        prompt="A lighthouse at dawn",
        wait_for_completion=True,
        poll_interval=0.02,
        **OPERATOR_WAYS[way],
        **options,
    )
    assert to_its_end(operator, context) == context["ti"].xcoms["jobId"] == context["ti"].xcoms["return_value"]
    return context["ti"].xcoms["image"]


@pytest.mark.parametrize(("way", "option"), WAYS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_way_of_waiting_comes_to_the_same_end(pictory, context, outcome, way, option):
    plan, fault, error, soft_fail_skips = OUTCOMES[outcome]
    of = GenerateImageOperator if way in OPERATOR_WAYS else PictoryJobSensor
    error = error[of] if isinstance(error, dict) else error
    if error is None:
        record = wait(pictory, context, way, option, plan, fault)
        (job,) = pictory.account.jobs.values()
        assert record == {
            "job_id": job.job_id,
            "status": "completed",
            "url": f"{pictory.images_url}/images/user/{job.job_id}/{job.image_id}.png",
            "width": 1024,
            "height": 1024,
            "ai_credits_used": 2.0,
        }
        return
    is_skipped = option == "never_fail" or (option == "soft_fail" and soft_fail_skips)
    with pytest.raises(AirflowSkipException if is_skipped else error) as caught:
        wait(pictory, context, way, option, plan, fault)
    (job,) = pictory.account.jobs.values()
    if is_skipped:
        assert option in str(caught.value)
    else:
        assert type(caught.value) is error
    if error is not PictoryAuthenticationError and error is not PictoryEdgeBlocked:
        assert job.job_id in str(caught.value)
    assert "image" not in context["ti"].xcoms


def test_the_errors_of_every_way_say_the_same_about_a_retry():
    """A timeout is the exception: looking again does not help a sensor, and a retried operator adopts its job."""
    final = {outcome: error for outcome, (_, _, error, _) in OUTCOMES.items() if isinstance(error, type)}
    retried = {outcome for outcome, error in final.items() if not issubclass(error, AirflowFailException)}
    assert retried == {"edge block"}
    assert not issubclass(PictoryWaitTimeout, AirflowFailException)


@pytest.fixture
def proxy():
    """Return the URL of a proxy that can reach the account, too."""
    with Simulator(seconds=0, api_key="pictai_canary") as pictory:
        yield pictory


def ask(job_id, way):
    """Return the result of a poll: the completed job, or the error and its text."""
    if way == "worker":
        try:
            with PictoryHook() as hook:
                return hook.wait_for_job(job_id, poll_interval=0.02, timeout=0.05)
        except PictoryRequestInvalid as error:
            return error.message
    (event,) = events_of(trigger(job_id, end_time=time.time() + 0.05))
    result = events.read(event.payload).result
    return result if isinstance(result, Job) else result.message


WORKS = {
    "a proxy": {"proxy": "http://{at}"},
    "a proxy without a scheme": {"proxy": "{at}"},
    "a proxy with a password": {"proxy": "http://user:pa%2Fss%40@{at}"},
    "a proxy of the environment": {"http_proxy": "http://{at}"},
    "a proxy of the environment without a scheme": {"HTTP_PROXY": "{at}"},
    "a proxy for everything": {"all_proxy": "{at}"},
}
REFUSED = {
    "socks": {"proxy": "socks5://{at}"},
    "socks from the environment": {"http_proxy": "socks5h://{at}"},
    "socks for everything": {"ALL_PROXY": "socks5://{at}"},
    "a password that breaks the URL": {"proxy": "http://user:pa/ss@{at}"},
    "a user in the base URL": {"host": "http://user:pass@{at}/pictoryapis"},
    "a folder of certificates": {"ca_bundle": "/etc/ssl/certs"},
    "certificates that are none": {"ca_bundle": __file__},
    "certificates that are not there": {"ca_bundle": "/no/such/file.pem"},
    "a folder from the environment": {"REQUESTS_CA_BUNDLE": "/"},
    "a file that is not there from the environment": {"CURL_CA_BUNDLE": "/no/such/file.pem"},
}


def connect(monkeypatch, proxy, changes):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    connection = {
        "conn_type": "pictory",
        "password": proxy.api_key,
        "host": "http://api.pictory.invalid/pictoryapis",
    }
    extra = {}
    at = f"127.0.0.1:{urlsplit(proxy.base_url).port}"
    for name, text in changes.items():
        value = text.format(at=at)
        if name == "host":
            connection["host"] = value
        elif name in ("proxy", "ca_bundle"):
            extra[name] = value
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW_CONN_PICTORY_DEFAULT", json.dumps(connection | {"extra": extra}))


@pytest.mark.parametrize("connection", WORKS)
def test_a_connection_that_works_on_a_worker_works_in_the_triggerer(monkeypatch, proxy, connection):
    connect(monkeypatch, proxy, WORKS[connection])
    with PictoryHook() as hook:
        job_id = hook.generate_image("A lighthouse at dawn")
    proxy.requests.clear()
    on_worker, in_triggerer = ask(job_id, "worker"), ask(job_id, "triggerer")
    assert on_worker == in_triggerer
    assert on_worker.status == "completed"
    headers = [request.headers.get("Proxy-Authorization") for request in proxy.requests]
    assert len(headers) == 2
    assert headers[0] == headers[1]
    assert (headers[0] is not None) is ("password" in connection)


@pytest.mark.parametrize("connection", REFUSED)
def test_a_connection_that_only_one_side_could_use_is_refused_by_both_and_nothing_is_sent(
    monkeypatch, proxy, connection
):
    connect(monkeypatch, proxy, REFUSED[connection])
    on_worker, in_triggerer = ask("j", "worker"), ask("j", "triggerer")
    assert on_worker == in_triggerer
    assert "No request was made" in on_worker
    assert "pa/ss" not in on_worker
    assert proxy.requests == []
