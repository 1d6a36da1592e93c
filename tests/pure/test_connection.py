# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What a connection must hold."""

from __future__ import annotations

import pytest

from pictory_provider import __version__
from pictory_provider.api.connection import DEFAULT_BASE_URL, ConnectionSettings
from pictory_provider.api.errors import AuthenticationError, PictoryError, RequestInvalid

KEY = "pictai_0123456789"


def settings(password=KEY, host=None, **extra):
    return ConnectionSettings.from_fields("pictory_default", password=password, host=host, extra=extra)


def test_a_key_is_all_that_is_needed():
    found = settings()
    assert (found.api_key, found.base_url, found.timeout) == (KEY, DEFAULT_BASE_URL, 60)
    assert found.user_agent == f"airflow-provider-pictory/{__version__}"


@pytest.mark.parametrize("password", [None, "", "   "])
def test_a_connection_without_a_key_says_where_to_get_one(password):
    with pytest.raises(AuthenticationError, match=r"app\.pictory\.ai/api-access"):
        settings(password)


@pytest.mark.parametrize("password", [f"Bearer {KEY}", f"bearer {KEY}"])
def test_bearer_before_the_key_is_named_without_showing_the_key(password):
    with pytest.raises(AuthenticationError, match="`Bearer` before") as caught:
        settings(password)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("password", ["pictai_ab cd", "pictai_ab\ncd", "pictai_\u00e4"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(password):
    with pytest.raises(AuthenticationError) as caught:
        settings(password)
    assert password not in str(caught.value)


def test_a_line_break_after_the_key_is_forgiven():
    assert settings(f"{KEY}\n").api_key == KEY


@pytest.mark.parametrize("host", ["https://h.example/api", "https://h.example/api/", " https://h.example/api// "])
def test_a_trailing_slash_makes_no_difference(host):
    assert settings(host=host).url("/v1/quota") == "https://h.example/api/v1/quota"


@pytest.mark.parametrize(
    "host", ["api.pictory.ai", "ftp://h", "https://", "https://h/?a=b", "https://h:x/", "//h"]
)
def test_a_base_url_without_a_scheme_or_host_is_refused(host):
    with pytest.raises(RequestInvalid, match="base URL") as caught:
        settings(host=host)
    assert caught.value.fields == ("host",)


@pytest.mark.parametrize(
    "extra",
    [
        {"timeout": 0},
        {"timeout": "soon"},
        {"timeout": 1e9},
        {"timeout": float("nan")},
        {"requests_per_second": 0},
        {"requests_per_second": "many"},
        {"requests_per_second": 1001},
        {"user_agent": "caf\u00e9"},
        {"user_agent": "a\r\nX: b"},
        {"ca_bundle": "/no/such/file.pem"},
    ],
)
def test_every_wrong_field_of_the_extra_is_named(extra):
    with pytest.raises(PictoryError) as caught:
        settings(**extra)
    assert caught.value.fields == tuple(extra)


def test_empty_fields_of_the_form_mean_the_defaults():
    assert settings(host="", timeout="", user_agent="", proxy="", ca_bundle="") == settings()


def test_neither_key_nor_proxy_password_is_in_the_repr():
    text = repr(settings(proxy="http://user:secret@proxy:3128"))
    assert KEY not in text
    assert "secret" not in text


def test_the_connection_decides_on_the_proxy_before_the_environment_does():
    environment = {"HTTPS_PROXY": "http://env:1", "no_proxy": "internal.example"}
    assert settings().proxy_for("https://api.pictory.ai/x", environment) == "http://env:1"
    assert settings().proxy_for("https://internal.example/x", environment) is None
    assert settings().proxy_for("https://api.pictory.ai/x", {}) is None
    assert settings(proxy="http://own:2").proxy_for("https://api.pictory.ai/x", environment) == "http://own:2"


def test_the_connection_decides_on_the_certificates_before_the_environment_does(tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    environment = {"REQUESTS_CA_BUNDLE": "/env.pem"}
    assert settings().trusted_certificates(environment) == "/env.pem"
    assert settings(ca_bundle=str(bundle)).trusted_certificates(environment) == str(bundle)
    assert settings().trusted_certificates({}) is None
