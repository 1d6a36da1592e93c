# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What a connection must hold."""

from __future__ import annotations

import certifi
import pytest

from pictory_provider import __version__
from pictory_provider.api.connection import CONNECT_TIMEOUT, DEFAULT_BASE_URL, ConnectionSettings
from pictory_provider.api.errors import AuthenticationError, PictoryError, RequestInvalid

KEY = "pictai_0123456789"


def settings(password=KEY, host=None, environment=None, **extra):
    return ConnectionSettings.from_fields(
        "pictory_default", password=password, host=host, extra=extra, environment=environment or {}
    )


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
        {"ca_bundle": "/"},
        {"ca_bundle": __file__},
        {"ca_bundle": ["/a.pem"]},
        {"user_agent": 1},
        {"proxy": 3128},
        {"proxy": "socks5://proxy:1080"},
        {"proxy": "ftp://proxy:21"},
        {"proxy": "http://"},
        {"proxy": "http://proxy:0"},
        {"proxy": "http://proxy:99999"},
        {"proxy": "http://proxy:3128/path"},
        {"proxy": "http://proxy:3128?a=b"},
        {"proxy": "http://proxy:3128#a"},
        {"proxy": "http://pro xy:3128"},
        {"proxy": "http://user:%E2%82%AC@proxy:3128"},
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
    environment = {"REQUESTS_CA_BUNDLE": "/env.pem", "CURL_CA_BUNDLE": "/curl.pem"}
    assert settings().trusted_certificates(environment) == "/env.pem"
    assert settings().trusted_certificates({"CURL_CA_BUNDLE": "/curl.pem"}) == "/curl.pem"
    own = settings(ca_bundle=certifi.where(), environment={"REQUESTS_CA_BUNDLE": "/no/such/file.pem"})
    assert own.trusted_certificates(environment) == certifi.where()
    assert settings().trusted_certificates({}) is None


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize(("path", "why"), [("/", "Is a directory"), ("/no", "No such file"), (__file__, "PEM")])
def test_certificates_of_the_environment_are_checked_and_the_variable_is_named(variable, path, why):
    with pytest.raises(RequestInvalid, match=f"{variable}.*{why}"):
        settings(environment={variable: path})


@pytest.mark.parametrize("value", ["proxy:3128", "user:secret@proxy:3128"])
def test_a_proxy_without_a_scheme_is_an_http_proxy(value):
    assert settings(proxy=value).proxy == f"http://{value}"
    assert settings().proxy_for("https://h/x", {"https_proxy": value}) == f"http://{value}"


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_that_only_one_side_can_use_is_refused_and_named(variable):
    with pytest.raises(RequestInvalid, match=f"The environment has a {variable.lower()}.*no SOCKS") as caught:
        settings(environment={variable: "socks5://user:secret@proxy:1080"})
    assert "secret" not in str(caught.value)
    assert "The connection's own proxy wins" in str(caught.value)


def test_a_proxy_that_is_not_used_is_not_refused():
    environment = {"https_proxy": "socks5://proxy:1080", "no_proxy": "api.pictory.ai"}
    assert settings(environment=environment).proxy_for(DEFAULT_BASE_URL, environment) is None
    assert (
        settings(proxy="http://own:2", environment={"https_proxy": "socks5://proxy:1080"}).proxy == "http://own:2"
    )
    assert settings(environment={"http_proxy": "socks5://proxy:1080"}) == settings()


@pytest.mark.parametrize(("name", "most"), [("timeout", 3_600), ("requests_per_second", 1_000)])
def test_a_number_passes_up_to_its_limit_and_not_beyond(name, most):
    assert getattr(settings(**{name: most}), name) == most
    assert getattr(settings(**{name: 0.01}), name) == 0.01
    for wrong in (most + 0.01, 0, -1, "many"):
        with pytest.raises(RequestInvalid, match=name):
            settings(**{name: wrong})


def test_a_connection_is_given_up_after_ten_seconds():
    assert CONNECT_TIMEOUT == 10


@pytest.mark.parametrize("password", ["se/cret", "1/secret", "se#cret", "se?cret", "se cret"])
def test_a_password_that_breaks_the_proxys_url_is_told_without_being_shown(password):
    with pytest.raises(RequestInvalid, match=r"%2F %40 %23 %3F %3A") as caught:
        settings(proxy=f"http://user:{password}@proxy:3128")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("host", ["https://user:secret@h.example/api", "https://token@h", "https://u:p/secret@h"])
def test_a_user_in_the_base_url_is_refused_without_being_shown(host):
    with pytest.raises(RequestInvalid, match="user name or a password in its base URL") as caught:
        settings(host=host)
    assert caught.value.fields == ("host",)
    assert "secret" not in str(caught.value)
    assert "token@" not in str(caught.value)
