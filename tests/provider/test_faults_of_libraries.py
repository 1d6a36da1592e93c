# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Every exception that the HTTP libraries define becomes a fault, and the right one, wherever it strikes."""

from __future__ import annotations

import asyncio
import inspect
import socket
import ssl

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


def exceptions_of(*modules) -> list[type[Exception]]:
    found = {
        member
        for module in modules
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Exception) and not issubclass(member, Warning)
    }
    return sorted(found, key=lambda cls: f"{cls.__module__}.{cls.__qualname__}")


OF_THE_SYSTEM = [
    BrokenPipeError,
    ConnectionAbortedError,
    ConnectionRefusedError,
    ConnectionResetError,
    TimeoutError,
    UnicodeError,
    ValueError,
    socket.gaierror,
    ssl.SSLCertVerificationError,
    ssl.SSLError,
]
OF_REQUESTS = [*exceptions_of(requests.exceptions, urllib3.exceptions), *OF_THE_SYSTEM]
OF_AIOHTTP = [*exceptions_of(aiohttp.client_exceptions), *OF_THE_SYSTEM]
AIOHTTP_NEVER_SENT = {
    "ClientConnectorCertificateError",
    "ClientConnectorDNSError",
    "ClientConnectorError",
    "ClientConnectorSSLError",
    "ClientProxyConnectionError",
    "ClientSSLError",
    "ConnectionTimeoutError",
    "InvalidURL",
    "InvalidUrlClientError",
    "InvalidUrlRedirectClientError",
    "UnixClientConnectorError",
}


def made(cls: type[Exception]) -> Exception:
    """Return an exception without its constructor: each takes other arguments."""
    error = cls.__new__(cls)
    error.args = ("it struck",)
    return error


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


@pytest.mark.parametrize("cls", OF_REQUESTS, ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_whatever_strikes_before_the_body_left_means_that_nothing_was_sent(pictory, monkeypatch, cls):
    def send(*_, **__):
        raise made(cls)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    assert fault_of(pictory) is Fault.NEVER_SENT


@pytest.mark.parametrize("cls", OF_REQUESTS, ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_whatever_strikes_after_the_body_left_means_that_it_may_have_been_accepted(pictory, monkeypatch, cls):
    def send(_, request, **__):
        assert b"".join(request.body)
        raise made(cls)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    assert fault_of(pictory) is Fault.MAYBE_ACCEPTED


@pytest.mark.parametrize("cls", OF_REQUESTS, ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_whatever_strikes_while_the_reply_is_read_makes_it_unreadable(pictory, monkeypatch, cls):
    def read1(*_, **__):
        raise made(cls)

    monkeypatch.setattr(urllib3.response.HTTPResponse, "read1", read1)
    assert fault_of(pictory, QUOTA) is Fault.UNREADABLE


@pytest.mark.parametrize("cls", OF_AIOHTTP, ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
@pytest.mark.parametrize("moment", ["before the reply", "during the reply"])
def test_whatever_strikes_in_the_triggerer_is_a_fault(pictory, monkeypatch, cls, moment):
    async def strike(*_, **__):
        raise made(cls)

    if moment == "before the reply":
        monkeypatch.setattr(aiohttp.ClientSession, "_request", strike)
    else:
        monkeypatch.setattr(aiohttp.StreamReader, "read", strike)

    async def send():
        client = await AsyncClient.open(settings(pictory))
        try:
            await client.send(QUOTA)
        finally:
            await client.close()

    with pytest.raises(TransportError) as caught:
        asyncio.run(send())
    if moment == "during the reply":
        expected = Fault.UNREADABLE
    else:
        never = cls.__name__ in AIOHTTP_NEVER_SENT
        expected = Fault.NEVER_SENT if never else Fault.MAYBE_ACCEPTED
    assert caught.value.fault is expected


def test_the_libraries_define_the_exceptions_that_are_walked():
    """The walk is not over an empty list, and every name of the table exists."""
    assert len(OF_REQUESTS) > 50
    assert {cls.__name__ for cls in OF_AIOHTTP} >= AIOHTTP_NEVER_SENT
