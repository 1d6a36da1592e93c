# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The clients over real sockets: how far a request had got when its connection failed."""

from __future__ import annotations

import asyncio
import html
import json
import logging
import re
import socket
import ssl
import threading
import traceback
from base64 import b64decode, b64encode
from contextlib import contextmanager, suppress
from urllib.parse import quote, unquote, urlsplit

import certifi
import pytest
import requests

from pictory_provider.api import endpoints, responses, retry
from pictory_provider.api.connection import ConnectionSettings
from pictory_provider.api.endpoints import Request
from pictory_provider.api.errors import (
    AuthenticationError,
    CertificateUntrusted,
    EdgeBlocked,
    Fault,
    TransportError,
)
from pictory_provider.api.models import ImageRequest
from pictory_provider.api.network import CA_VARIABLES
from pictory_provider.client.aio import AsyncClient
from pictory_provider.client.faults import connection_failed
from pictory_provider.client.masking import Mask
from pictory_provider.client.sync import SyncClient
from pictory_provider.simulator import Simulator
from tests.stand_ins import says

POST = endpoints.generate_image(ImageRequest(prompt="A lighthouse at dawn"))
QUOTA = endpoints.get_quota()


def proxy_at(simulator):
    return f"http://127.0.0.1:{urlsplit(simulator.base_url).port}"


def settings(base_url, **more):
    return ConnectionSettings(base_url=base_url, **{"api_key": "pictai_canary", "timeout": 2.0, **more})


def send(base_url, request=POST, **more):
    client = SyncClient(settings(base_url, **more))
    try:
        return client.send(request)
    finally:
        client.close()


def asend(base_url, request=QUOTA, **more):
    async def run():
        client = await AsyncClient.open(settings(base_url, **more))
        try:
            return await client.send(request)
        finally:
            await client.close()
            if base_url.startswith("https:"):
                # https://docs.aiohttp.org/en/stable/client_advanced.html#graceful-shutdown
                await asyncio.sleep(0.25)

    return asyncio.run(run())


@contextmanager
def server(behave):
    """Listen on loopback; ``behave`` gets each accepted socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    behave(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def read_request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received or not received.endswith(b"}"):
        piece = connection.recv(65_536)
        if not piece:
            break
        received += piece
    return received


def abort(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def fault_of(call, *arguments, **more) -> Fault:
    with pytest.raises(TransportError) as caught:
        call(*arguments, **more)
    assert "pictai_canary" not in str(caught.value)
    return caught.value.fault


@pytest.mark.parametrize("call", [send, asend])
def test_a_refused_connection_never_sent_anything(call):
    assert fault_of(call, closed_port()) is Fault.NEVER_SENT


@pytest.mark.parametrize("call", [send, asend])
def test_a_host_that_does_not_resolve_never_got_anything(call):
    assert fault_of(call, "http://no-such-host.invalid") is Fault.NEVER_SENT


@pytest.mark.parametrize("call", [send, asend])
def test_a_certificate_that_is_not_trusted_stops_before_anything_is_sent(call, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Simulator(ssl_context=context) as pictory:
        assert fault_of(call, pictory.base_url) is Fault.NEVER_SENT
        assert pictory.requests == []


@pytest.mark.parametrize("call", [send, asend])
@pytest.mark.parametrize("source", ["the connection", "the environment", "nothing"])
def test_the_error_of_an_untrusted_certificate_says_what_to_set(call, certificate, monkeypatch, source):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if source == "the environment":
        monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    own = {"ca_bundle": certifi.where()} if source == "the connection" else {}
    with Simulator(ssl_context=context) as pictory, pytest.raises(CertificateUntrusted) as caught:
        call(pictory.base_url, request=QUOTA, **own)
    message = caught.value.message
    assert message.startswith("The certificate of 127.0.0.1 cannot be verified on this machine (self-signed ")
    assert "certificate), so GET /v1/quota was never sent. It bought nothing," in message
    assert "`ca_bundle` of the connection's extra, or into REQUESTS_CA_BUNDLE or SSL_CERT_FILE" in message
    trusted = "the default authorities" if source == "nothing" else f"only the certificates in {certifi.where()}"
    assert message.endswith(f" Trusted now: {trusted}.")


def test_a_certificate_error_after_the_body_has_left_does_not_mean_never_sent():
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    where = {"settings": settings("https://h.invalid"), "url": "https://h.invalid/x"}
    after = connection_failed("POST /x", Fault.MAYBE_ACCEPTED, error, is_sent=True, **where)
    assert not isinstance(after, CertificateUntrusted)
    assert retry.classify_submit_error(after) is retry.SubmitOutcome.UNKNOWN
    before = connection_failed("POST /x", Fault.NEVER_SENT, error, **where)
    assert isinstance(before, CertificateUntrusted)
    assert retry.classify_submit_error(before) is retry.SubmitOutcome.NEVER_SENT


@pytest.mark.parametrize("call", [send, asend])
@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_each_variable_of_the_environment_alone_makes_an_authority_trusted(
    call, certificate, monkeypatch, variable
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(certificate))
    with Simulator(ssl_context=context, api_key="pictai_canary") as pictory:
        assert call(pictory.base_url, request=QUOTA).status == 200


@pytest.mark.parametrize("call", [send, asend])
def test_a_network_that_is_excluded_from_the_proxy_is_reached_directly(call, monkeypatch):
    monkeypatch.setenv("http_proxy", closed_port())
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "10.0.0.0/8,127.0.0.0/8")
    with Simulator(api_key="pictai_canary") as pictory:
        assert call(pictory.base_url, request=QUOTA).status == 200


@pytest.mark.parametrize("call", [send, asend])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("source", ["connection", "environment"])
def test_a_proxy_that_refuses_the_connection_is_named_without_its_user(call, monkeypatch, scheme, source):
    proxy = closed_port().replace("//", "//someone:secret@")
    own = {"proxy": proxy} if source == "connection" else {}
    if source == "environment":
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
    with pytest.raises(TransportError) as caught:
        call(f"{scheme}://api.pictory.invalid/pictoryapis", request=QUOTA, **own)
    port = urlsplit(proxy).port
    assert "ConnectionRefusedError" in caught.value.message
    assert f"The request goes through the proxy 127.0.0.1:{port}, set in the {source}." in caught.value.message
    assert "someone" not in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("call", [send, asend])
def test_a_connection_that_is_refused_without_a_proxy_names_none(call):
    with pytest.raises(TransportError) as caught:
        call(closed_port(), request=QUOTA)
    assert "proxy" not in caught.value.message


@pytest.mark.parametrize("call", [send, asend])
@pytest.mark.parametrize("status", ["403 Forbidden", "407 Proxy Authentication Required", "502 Bad Gateway"])
def test_a_proxy_that_opens_no_tunnel_is_named_with_its_answer(call, status):
    def refuse(connection):
        connection.recv(65_536)
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    with server(refuse) as url, pytest.raises(TransportError) as caught:
        call("https://api.pictory.invalid", request=QUOTA, proxy=url)
    assert (
        f": the proxy answered {status[:3]}. The request goes through the proxy {url[7:]}," in caught.value.message
    )


@pytest.mark.parametrize("call", [send, asend])
def test_the_connections_own_ca_bundle_is_trusted(call, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Simulator(ssl_context=context, api_key="pictai_canary") as pictory:
        assert call(pictory.base_url, request=QUOTA, ca_bundle=str(certificate)).status == 200


@pytest.mark.parametrize("call", [send, asend])
def test_tls_that_never_answers_never_got_anything(call):
    with server(lambda connection: connection.close()) as url:
        assert fault_of(call, url.replace("http:", "https:")) is Fault.NEVER_SENT


def test_a_connection_reset_before_the_body_left_never_sent_it():
    def behave(connection):
        connection.recv(10)
        abort(connection)

    with server(behave) as url:
        assert fault_of(send, url.replace("http:", "https:")) is Fault.NEVER_SENT


def test_a_connection_reset_after_the_request_may_have_been_accepted():
    def behave(connection):
        read_request(connection)
        abort(connection)

    with server(behave) as url:
        assert fault_of(send, url) is Fault.MAYBE_ACCEPTED


@pytest.mark.parametrize("call", [send, asend])
def test_a_connection_closed_after_the_request_may_have_been_accepted(call):
    with server(lambda connection: connection.recv(65_536)) as url:
        assert fault_of(call, url) is Fault.MAYBE_ACCEPTED


@pytest.mark.parametrize("call", [send, asend])
def test_a_reply_that_never_comes_may_follow_an_acceptance(call):
    silent = threading.Event()
    with server(lambda connection: silent.wait(5)) as url:
        assert fault_of(call, url, timeout=0.2) is Fault.MAYBE_ACCEPTED
        silent.set()


@pytest.mark.parametrize("call", [send, asend])
def test_a_reply_that_breaks_off_is_unreadable(call):
    def behave(connection):
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

    with server(behave) as url:
        assert fault_of(call, url) is Fault.UNREADABLE


@pytest.mark.parametrize("call", [send, asend])
@pytest.mark.parametrize("reply", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_a_reply_that_is_no_http_may_follow_an_acceptance(call, reply):
    def behave(connection):
        read_request(connection) if call is send else connection.recv(65_536)
        connection.sendall(reply)

    with server(behave) as url:
        assert fault_of(call, url) is Fault.MAYBE_ACCEPTED


@pytest.mark.parametrize("call", [send, asend])
def test_a_reply_without_an_end_is_given_up(call):
    def behave(connection):
        connection.recv(65_536)
        with suppress(OSError):
            while True:
                connection.sendall(b"x" * 50_000 if begun else b"HTTP/1.1 200 OK\r\n\r\n")
                begun.append(True)

    begun: list[bool] = []
    with server(behave) as url, pytest.raises(TransportError, match=says("the reply is too large")) as caught:
        call(url)
    assert caught.value.fault is Fault.UNREADABLE


JOB = endpoints.get_job("4d82d040-4394-4371-867d-72ae1dd62b6d")
LISTS = [endpoints.list_images(), endpoints.list_jobs(), endpoints.get_credit_usage(2026, 11)]


@pytest.mark.parametrize("call", [send, asend])
@pytest.mark.parametrize("request_", [JOB, QUOTA], ids=["job", "quota"])
def test_the_reply_about_one_job_or_the_quota_is_read_up_to_256_kib(call, request_):
    with Simulator(api_key="pictai_canary") as pictory:
        pictory.set(reply_bytes=256 * 1024)
        assert len(call(pictory.base_url, request=request_).body) == 256 * 1024
        pictory.set(reply_bytes=256 * 1024 + 1)
        with pytest.raises(TransportError, match=says("the reply is too large, above 256 KiB")) as caught:
            call(pictory.base_url, request=request_)
    assert caught.value.fault is Fault.UNREADABLE


@pytest.mark.parametrize("call", [send, asend])
@pytest.mark.parametrize("request_", LISTS, ids=["gallery", "jobs", "ledger"])
def test_a_list_may_be_larger_than_other_replies(call, request_):
    with Simulator(api_key="pictai_canary") as pictory:
        pictory.set(reply_bytes=512 * 1024)
        assert call(pictory.base_url, request=request_).status == 200
    assert request_.max_bytes >= 16 * 1024 * 1024


def test_the_reply_to_a_purchase_that_is_too_large_leaves_its_outcome_unknown():
    with Simulator(api_key="pictai_canary") as pictory:
        pictory.set(reply_bytes=256 * 1024 + 1)
        with pytest.raises(TransportError) as caught:
            send(pictory.base_url)
        assert len(pictory.account.jobs) == 1
    assert retry.classify_submit_error(caught.value) is retry.SubmitOutcome.UNKNOWN


# The key in a reply --------------------------------------------------------------------------------------

KEY = "pictai_cAn+ary/9=="
BASIC = {user: b64encode(f"{user}{KEY}:".encode()).decode() for user in ("", "u:", "us:", "use:")}


def in_urls(text):
    return quote(text, safe="")


FORMS = {
    "raw": KEY,
    "JSON's slash": KEY.replace("/", "\\/"),
    "JSON's codes": "".join(f"\\u{ord(each):04x}" for each in KEY),
    "JSON's codes in capitals": KEY.replace("+", "\\u002B").replace("=", "\\u003D"),
    "JSON in JSON": json.dumps(json.dumps(KEY).replace("/", "\\/"))[1:-1],
    "codes in codes": KEY.replace("+", "\\u0025\\u0032b"),
    "URL": in_urls(KEY),
    "URL in small letters": in_urls(KEY).lower().replace("can", "cAn"),
    "URL in a URL": in_urls(in_urls(KEY)),
    "all of it as in a URL": "".join(f"%{ord(each):02X}" for each in KEY),
    "HTML": KEY.replace("+", "&#43;").replace("/", "&#x2F;").replace("=", "&equals;"),
    **{f"base64 after {user!r}": text for user, text in BASIC.items()},
    **{f"base64 for URLs after {user!r}": text.translate({43: "-", 47: "_"}) for user, text in BASIC.items()},
    "base64 in a URL": in_urls(BASIC["us:"]),
    "base64 with JSON's slash": BASIC["u:"].replace("/", "\\/").replace("+", "\\u002b"),
}


def readable(text):
    """Return every way in which a text can be read, escapes within escapes too."""
    ways = [text]
    for _ in range(5):
        last = ways[-1]
        with suppress(ValueError):
            ways.append(json.loads(f'"{last}"'))
        ways += [unquote(ways[-1]), html.unescape(unquote(ways[-1]))]
    for way in list(ways):
        for part in re.findall(r"[A-Za-z0-9+/_-]{8,}", way):
            for start in range(4):
                padded = part[start:].translate({45: "+", 95: "/"})
                ways.append(b64decode(padded[: len(padded) // 4 * 4]).decode("latin-1"))
    return ways


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_key_can_be_read_in_each_of_these_forms(form):
    assert any(KEY[2:-4] in way for way in readable(form))


@pytest.mark.parametrize("call", [send, asend])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_reply_that_repeats_the_key_is_quoted_without_it_however_it_is_written(call, form):
    body = f'{{"message": "Basic {form} may not do that, \\u00e4 neither"}}'
    with Simulator(api_key=KEY) as pictory:
        pictory.script("any", "server-error", status=403, body=body, times=-1)
        reply = call(pictory.base_url, request=QUOTA, api_key=KEY)
    with pytest.raises(AuthenticationError) as caught:
        responses.check(reply)
    assert "may not do that, \u00e4 neither" in caught.value.message
    for way in [*readable(caught.value.message), *readable(reply.body.decode())]:
        assert KEY[2:-4] not in way


@pytest.mark.parametrize("call", [send, asend])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32"])
def test_a_page_that_repeats_the_key_is_quoted_without_it_in_every_encoding(call, encoding):
    def behave(connection):
        connection.recv(65_536)
        body = f"<html>{KEY} and {BASIC['']}</html>".encode(encoding)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with server(behave) as url, pytest.raises(EdgeBlocked) as caught:
        responses.check(call(url, request=QUOTA, api_key=KEY))
    bare = caught.value.message.replace("\\x00", "").replace("\0", "")
    assert KEY not in bare
    assert BASIC[""][:16] not in bare


@pytest.mark.parametrize("call", [send, asend])
def test_the_password_of_a_proxy_is_hidden_in_replies_like_the_key(call):
    with Simulator(api_key="pictai_canary") as proxy:
        proxy.script("any", "server-error", status=407, body='{"message": "no se/cret99 here"}', times=-1)
        at = proxy_at(proxy).replace("//", "//user:se%2Fcret99@")
        reply = call("http://api.pictory.invalid/pictoryapis", request=QUOTA, proxy=at)
    assert json.loads(reply.body) == {"message": "no *** here"}


def test_a_reply_without_the_key_is_left_as_it_is():
    mask = Mask(KEY, "short", None)
    for body in (
        b"",
        b"{}",
        b'{"a": "b\\/c%20&amp;"}',
        b"\\" * 1_000,
        b"%25" * 1_000,
        b"short",
        KEY[:-1].encode(),
    ):
        assert mask.hide(body) == body
    assert Mask("short").hide(b"short") == b"short"


@pytest.mark.parametrize("call", [send, asend])
def test_a_reply_in_wrong_chunks_may_follow_an_acceptance(call):
    def behave(connection):
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n{}\r\n")

    with server(behave) as url:
        assert fault_of(call, url) is not Fault.NEVER_SENT


def test_certificates_of_the_environment_that_are_not_there_stop_before_anything_is_sent(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    assert fault_of(send, "https://127.0.0.1:1") is Fault.NEVER_SENT


@pytest.mark.parametrize("call", [send, asend])
def test_a_body_in_an_encoding_that_is_wrong_is_unreadable(call):
    def behave(connection):
        connection.recv(65_536)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot gzip!"
        )

    with server(behave) as url:
        assert fault_of(call, url) is Fault.UNREADABLE


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", [send, asend])
def test_a_redirect_of_the_api_is_not_followed(call, status):
    with Simulator(api_key="pictai_canary") as pictory, Simulator() as elsewhere:
        pictory.script("any", "redirect", status=status, to=f"{elsewhere.base_url}/v1/quota")
        assert call(pictory.base_url).status == status
        assert elsewhere.requests == []


def test_credentials_of_a_netrc_file_do_not_replace_the_key(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login intruder password wrong\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with Simulator(api_key="pictai_canary") as pictory:
        assert send(pictory.base_url).status == 200
        assert pictory.submissions[0].headers["Authorization"] == "pictai_canary"


@pytest.mark.parametrize("call", [send, asend])
def test_requests_go_through_the_proxy_of_the_connection(call):
    with Simulator(api_key="pictai_canary") as proxy:
        reply = call("http://api.pictory.invalid/pictoryapis", request=QUOTA, proxy=proxy_at(proxy))
        assert reply.status in (200, 404)
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("call", [send, asend])
def test_requests_go_through_the_proxy_of_the_environment(call, monkeypatch):
    with Simulator(api_key="pictai_canary") as proxy:
        monkeypatch.setenv("http_proxy", proxy_at(proxy))
        call("http://api.pictory.invalid/pictoryapis", request=QUOTA)
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("user", ["", "user:word@"])
@pytest.mark.parametrize("call", [send, asend])
def test_a_proxy_is_asked_for_a_tunnel_without_the_key(call, user):
    seen = []

    def refuse(connection):
        seen.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with server(refuse) as url, pytest.raises(TransportError):
        call("https://api.pictory.invalid", request=QUOTA, proxy=url.replace("//", f"//{user}"))
    assert seen[0].startswith(b"CONNECT api.pictory.invalid:443 ")
    assert b"pictai_canary" not in b"".join(seen)
    assert (b"proxy-authorization: basic dxnlcjp3b3jk" in seen[0].lower()) is bool(user)


def relay(source, target):
    with suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("call", [send, asend])
def test_a_proxy_behind_tls_leads_to_a_pictory_behind_tls(call, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    asked = []

    def tunnel(connection):
        with context.wrap_socket(connection, server_side=True) as near:
            asked.append(near.recv(65_536).split(b"\r\n")[0].decode())
            near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with socket.create_connection(("127.0.0.1", urlsplit(pictory.base_url).port)) as far:
                back = threading.Thread(target=relay, args=(far, near))
                back.start()
                relay(near, far)
                back.join()

    with Simulator(ssl_context=context, api_key="pictai_canary") as pictory, server(tunnel) as url:
        proxy = url.replace("http://", "https://")
        assert call(pictory.base_url, request=QUOTA, ca_bundle=str(certificate), proxy=proxy).status == 200
        assert asked[0].startswith(f"CONNECT {urlsplit(pictory.base_url).netloc} HTTP/1.")


@pytest.mark.parametrize("call", [send, asend])
def test_the_user_agent_names_this_release_unless_the_connection_sets_another(call):
    with Simulator(api_key="pictai_canary") as pictory:
        call(pictory.base_url, request=QUOTA)
        call(pictory.base_url, request=QUOTA, user_agent="Mozilla/5.0")
        names = [request.headers["User-Agent"] for request in pictory.requests]
    assert names[0].startswith("airflow-provider-pictory/")
    assert names[1] == "Mozilla/5.0"


def test_each_post_goes_over_a_connection_of_its_own():
    ports = []

    def behave(connection):
        ports.append(connection.getpeername()[1])
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with server(behave) as url:
        client = SyncClient(settings(url))
        assert client.send(POST).body == client.send(POST).body == b"{}"
        client.close()
    assert len(set(ports)) == 2


def test_the_asynchronous_client_refuses_to_buy_anything():
    with Simulator() as pictory:
        with pytest.raises(ValueError, match=says("only sends GET")):
            asend(pictory.base_url, request=POST)
        with pytest.raises(ValueError, match=says("only sends GET")):
            asend(pictory.base_url, request=Request("DELETE", "/v1/jobs/a/clean"))
        assert pictory.requests == []


@pytest.mark.parametrize("call", [send, asend])
@pytest.mark.parametrize("password", ["secret", "se%2Fcret", "se%40cret", "s%23e%3Fcret", "secret%C3%BC"])
def test_a_proxys_password_is_in_no_traceback(call, password):
    with pytest.raises(TransportError) as caught:
        call("http://api.pictory.invalid", request=QUOTA, proxy=f"http://user:{password}@127.0.0.1:1")
    told = "".join(traceback.format_exception(caught.value))
    assert "cret" not in told
    assert "refused" in told.lower(), "the cause is named"


def test_the_query_of_a_results_url_is_not_in_what_the_libraries_log(caplog):
    with Simulator(api_key="pictai_canary") as pictory, caplog.at_level(logging.DEBUG):
        client = SyncClient(settings(pictory.base_url))
        with client.stream(f"{pictory.reference_image_url}?Expires=1&Signature=secret") as (reply, pieces):
            assert reply.status == 200
            assert b"".join(pieces)
        client.close()
    assert [record for record in caplog.records if record.name == "urllib3.connectionpool"]
    assert "Signature" not in caplog.text
    assert "secret" not in caplog.text


def test_what_others_send_is_logged_as_it_is(caplog):
    with Simulator() as pictory, caplog.at_level(logging.DEBUG):
        requests.get(pictory.reference_image_url, params={"page": 2}, timeout=5)
    assert "?page=2" in caplog.text


def test_a_paid_request_that_was_held_up_before_it_left_is_not_sent_at_all(fresh_simulator, timing):
    pictory = fresh_simulator()
    timing(send_delay=0.0)
    with pytest.raises(TransportError, match="held up for too long") as caught:
        send(pictory.base_url)
    assert caught.value.fault is Fault.NEVER_SENT
    assert pictory.account.jobs == {}


# Uploads -------------------------------------------------------------------------------------------------


@pytest.fixture
def upload():
    """Return a function that uploads a file, and one that asks whether it is there."""
    clients = []

    def client(**more):
        clients.append(SyncClient(settings("https://api.pictory.invalid/pictoryapis", **more)))
        return clients[-1]

    yield (
        lambda url, **more: client(**more).put(url, b"a picture", "image/png"),
        lambda url, **more: client(**more).head(url),
    )
    for each in clients:
        each.close()


@pytest.mark.parametrize("number", [0, 1])
def test_an_upload_goes_through_the_proxy_of_the_connection_without_the_key(upload, number):
    with Simulator(api_key="pictai_canary") as proxy:
        upload[number]("http://files.pictory.invalid/a.png?secret", proxy=proxy_at(proxy))
        (request,) = proxy.requests
    assert request.headers["Host"] == "files.pictory.invalid"
    assert "Authorization" not in request.headers
    assert "pictai_canary" not in str(request.headers)


@pytest.mark.parametrize("number", [0, 1])
def test_an_upload_trusts_the_certificates_that_other_requests_trust(upload, certificate, number):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Simulator(ssl_context=context) as pictory:
        url = f"{pictory.images_url}/public/teams/a.png?secret"
        with pytest.raises(CertificateUntrusted, match=says("of 127.0.0.1 cannot be verified")):
            upload[number](url)
        assert upload[number](url, ca_bundle=str(certificate)).status == 403


@pytest.mark.parametrize("number", [0, 1])
def test_the_error_of_an_upload_names_its_host_alone(upload, number):
    with pytest.raises(TransportError) as caught:
        upload[number](f"{closed_port()}/secret/a.png?secret")
    assert re.match(r"The (upload to|request for a file at) 127\.0\.0\.1 got no reply: ", caught.value.message)
    assert "secret" not in caught.value.message
    assert caught.value.__cause__ is None
