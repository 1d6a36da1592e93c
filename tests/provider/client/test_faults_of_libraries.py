# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Every error of an HTTP library becomes the right fault: a case for each branch.

``test_client.py`` has what real sockets make them raise.
"""

from __future__ import annotations

import asyncio
import ssl
from types import SimpleNamespace

import aiohttp
import pytest
import requests
import urllib3

from pictory_provider.api import endpoints
from pictory_provider.api.connection import ConnectionSettings
from pictory_provider.api.errors import Fault, TransportError
from pictory_provider.api.models import ImageRequest
from pictory_provider.client.aio import AsyncClient
from pictory_provider.client.sync import SyncClient
from pictory_provider.simulator import Simulator

POST = endpoints.generate_image(ImageRequest(prompt="A lighthouse at dawn"))
QUOTA = endpoints.get_quota()
WHERE = SimpleNamespace(host="h", port=443, is_ssl=True, ssl=True)
REFUSED = OSError(111, "Connection refused")


@pytest.fixture(scope="module")
def pictory():
    with Simulator(api_key="pictai_canary") as pictory:
        yield pictory


def settings(pictory) -> ConnectionSettings:
    return ConnectionSettings(api_key="pictai_canary", base_url=pictory.base_url, timeout=5)


def fault_of(pictory, request=POST) -> Fault:
    client = SyncClient(settings(pictory))
    try:
        with pytest.raises(TransportError) as caught:
            client.send(request)
    finally:
        client.close()
    return caught.value.fault


def test_any_error_before_the_body_left_means_that_nothing_was_sent(pictory, monkeypatch):
    def send(*_, **__):
        raise requests.ReadTimeout("the class says nothing, the body does")

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    assert fault_of(pictory) is Fault.NEVER_SENT


def test_any_error_after_the_body_left_means_that_it_may_have_been_accepted(pictory, monkeypatch):
    def send(_, request, **__):
        assert b"".join(request.body)
        raise requests.ConnectTimeout("the class says nothing, the body does")

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    assert fault_of(pictory) is Fault.MAYBE_ACCEPTED


def test_a_request_without_a_body_may_have_left(pictory, monkeypatch):
    def send(*_, **__):
        raise UnicodeError("no error of the library at all")

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    assert fault_of(pictory, QUOTA) is Fault.MAYBE_ACCEPTED


def test_any_error_while_the_reply_is_read_makes_it_unreadable(pictory, monkeypatch):
    def read1(*_, **__):
        raise urllib3.exceptions.DecodeError("it struck")

    monkeypatch.setattr(urllib3.response.HTTPResponse, "read1", read1)
    assert fault_of(pictory, QUOTA) is Fault.UNREADABLE


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (aiohttp.ClientConnectorDNSError(WHERE, REFUSED), Fault.NEVER_SENT),
        (aiohttp.ClientConnectorCertificateError(WHERE, ssl.SSLCertVerificationError()), Fault.NEVER_SENT),
        (aiohttp.ClientProxyConnectionError(WHERE, REFUSED), Fault.NEVER_SENT),
        (aiohttp.ConnectionTimeoutError(), Fault.NEVER_SENT),
        (aiohttp.InvalidURL("h"), Fault.NEVER_SENT),
        (aiohttp.ServerTimeoutError(), Fault.MAYBE_ACCEPTED),
        (aiohttp.ServerDisconnectedError(), Fault.MAYBE_ACCEPTED),
        (aiohttp.ClientOSError(104, "Connection reset by peer"), Fault.MAYBE_ACCEPTED),
        (UnicodeError("no error of the library at all"), Fault.MAYBE_ACCEPTED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_in_the_triggerer_before_the_reply_says_whether_the_request_left(
    pictory, monkeypatch, error, fault
):
    async def strike(*_, **__):
        raise error

    monkeypatch.setattr(aiohttp.ClientSession, "_request", strike)
    assert afault_of(pictory) is fault


def test_any_error_in_the_triggerer_during_the_reply_makes_it_unreadable(pictory, monkeypatch):
    async def strike(*_, **__):
        raise aiohttp.ConnectionTimeoutError

    monkeypatch.setattr(aiohttp.StreamReader, "read", strike)
    assert afault_of(pictory) is Fault.UNREADABLE


def afault_of(pictory) -> Fault:
    async def send():
        client = await AsyncClient.open(settings(pictory))
        try:
            await client.send(QUOTA)
        finally:
            await client.close()

    with pytest.raises(TransportError) as caught:
        asyncio.run(send())
    return caught.value.fault
