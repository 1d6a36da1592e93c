# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What a connection must hold."""

from __future__ import annotations

import certifi
import pytest

from pictory_provider import __version__
from pictory_provider.api.connection import (
    CONNECT_TIMEOUT,
    DEFAULT_BASE_URL,
    LIMITS,
    MOST_CONNECTIONS,
    MOST_REQUESTS_PER_SECOND,
    ConnectionSettings,
    extra_of,
)
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
        {"proxy": "http://%E2%82%AC:secret@proxy:3128"},
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


# Limits on spending --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(
    ("value", "limit"),
    [(None, None), ("", None), (0, 0), ("0", 0), (50, 50), (0.6, 0.6), (" 50 ", 50), ("1e3", 1_000), (-0.0, 0)],
)
def test_a_limit_is_a_number_from_0_on_and_an_empty_one_is_none(name, value, limit):
    found = settings(**{name: value})
    assert {each: getattr(found, each) for each in LIMITS} == {**dict.fromkeys(LIMITS), name: limit}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(
    "value", ["fifty", "50 credits", -0.01, "-1", True, False, "nan", float("inf"), "inf", 10**400, [50], {}]
)
def test_a_limit_that_is_no_number_is_refused_and_never_taken_for_none(name, value):
    with pytest.raises(RequestInvalid, match=f"as its {name}. No request was made.") as caught:
        settings(**{name: value})
    assert caught.value.fields == (name,)
    assert "Connection 'pictory_default' has" in caught.value.message


@pytest.mark.parametrize(
    "name", ["credit_per_day", "credits_per_week", "Credits_per_day", " credits_per_day", "CREDIT", "credits"]
)
def test_a_limit_under_a_name_that_nobody_reads_is_refused(name):
    with pytest.raises(RequestInvalid) as caught:
        settings(**{"user_agent": "x", name: 50})
    assert caught.value.fields == (name,)
    assert f"has {name!r} in its extra, which is none of credits_per_day, credits_per_month, credits_reserve" in (
        caught.value.message
    )


def test_what_is_no_limit_may_be_called_as_it_likes():
    assert settings(cred="x", my_credits=1, note="y") == settings()
    assert LIMITS == ("credits_per_day", "credits_per_month", "credits_reserve")


@pytest.mark.parametrize(
    ("extra", "value"),
    [(None, {}), ("", {}), ("  ", {}), ("{}", {}), ('{"credits_per_day": 50}', {"credits_per_day": 50})],
)
def test_an_extra_is_a_json_object_or_empty(extra, value):
    assert extra_of("c", extra) == value


@pytest.mark.parametrize("extra", ["{", "[]", "7", "null", '"x"', "credits_per_day=50"])
def test_an_extra_that_is_no_json_object_is_refused_as_it_may_hold_a_limit(extra):
    with pytest.raises(RequestInvalid, match=r"a limit on spending for one\. No request was made\.") as caught:
        extra_of("my_own", extra)
    assert caught.value.fields == ("extra",)
    assert "Connection 'my_own' has an extra that is no JSON object" in caught.value.message
    assert '{"credits_per_day": 50}' in caught.value.message


# The other fields ----------------------------------------------------------------------------------------


def test_the_defaults_and_bounds_of_a_connection_are_the_documented_ones():
    found = settings()
    assert (found.timeout, found.requests_per_second, found.proxy, found.ca_bundle) == (60, 10, None, None)
    assert (MOST_REQUESTS_PER_SECOND, MOST_CONNECTIONS) == (1_000, 50)
    assert DEFAULT_BASE_URL == "https://api.pictory.ai/pictoryapis"


def test_every_field_of_a_connection_is_read():
    found = settings(
        host="http://h.example:8080/api",
        timeout="7.5",
        user_agent=" mine ",
        proxy=" http://proxy:3128/ ",
        ca_bundle=f" {certifi.where()} ",
        requests_per_second=2,
        credits_per_day=1,
        credits_per_month=2,
        credits_reserve=3,
    )
    assert found == ConnectionSettings(
        api_key=KEY,
        base_url="http://h.example:8080/api",
        timeout=7.5,
        user_agent="mine",
        proxy="http://proxy:3128/",
        ca_bundle=certifi.where(),
        requests_per_second=2,
        credits_per_day=1,
        credits_per_month=2,
        credits_reserve=3,
    )


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("timeout", "seconds for one request, above 0 and up to 3600; the default is 60."),
        ("requests_per_second", "looks in a second, above 0 and up to 1000; the default is 10."),
    ],
)
def test_a_number_out_of_its_bounds_is_told_with_them(name, takes):
    with pytest.raises(RequestInvalid) as caught:
        settings(**{name: 0})
    assert caught.value.message == (
        f"Connection 'pictory_default' has 0 as its {name}. No request was made. The extra field takes {takes}"
    )


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"user_agent": ["x"]}, "has a list as its user_agent"),
        ({"proxy": ["x"]}, "has a list as its proxy"),
        ({"proxy": "ftp://p"}, "has a proxy that cannot be used"),
        (
            {"ca_bundle": "/no"},
            "names '/no' as its ca_bundle, and that cannot be used on this machine: No such file",
        ),
        ({"user_agent": "\u00e4"}, "has characters in its user_agent that an HTTP header cannot carry"),
    ],
)
def test_what_is_wrong_with_a_field_is_said_of_its_connection(extra, told):
    with pytest.raises(RequestInvalid) as caught:
        settings(**extra)
    assert f"Connection 'pictory_default' {told}" in caught.value.message
    assert "The connection's own proxy wins" not in caught.value.message


@pytest.mark.parametrize(
    "host",
    [
        "https://h:0",
        "https://h#a",
        "https://h?a",
        "https://h/a b",
        "https://h/a\tb",
        "ftp://h/",
        "https:///a",
        "h:1",
    ],
)
def test_a_base_url_with_more_than_scheme_host_port_and_path_is_refused(host):
    with pytest.raises(RequestInvalid, match=r"as its base URL\. No request was made") as caught:
        settings(host=host)
    assert caught.value.fields == ("host",)
    assert DEFAULT_BASE_URL in caught.value.message
    assert "Connection 'pictory_default'" in caught.value.message


@pytest.mark.parametrize("host", ["http://h", "https://h:1", "https://h:65535/a/b", "HTTPS://h", "https://h/a_"])
def test_a_base_url_may_be_any_of_the_web(host):
    assert settings(host=host).base_url == host


@pytest.mark.parametrize("password", ["Bearer", "BEARER x", "bearerx"])
def test_the_word_bearer_is_no_key_however_it_is_written(password):
    with pytest.raises(AuthenticationError, match="Connection 'pictory_default' has `Bearer` before"):
        settings(password)


@pytest.mark.parametrize("password", ["a b", "a\tb", "a\x7fb", "a\u00e4"])
def test_a_key_of_other_characters_is_told_of_its_connection(password):
    with pytest.raises(AuthenticationError, match="Connection 'pictory_default' has blanks, line breaks or other"):
        settings(password)


# Proxies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({"http_proxy": "http://p:1"}, "http://h/x", "http://p:1"),
        ({"http_proxy": "http://p:1"}, "https://h/x", None),
        ({"https_proxy": "http://p:1"}, "http://h/x", None),
        ({"https_proxy": "http://p:1", "all_proxy": "http://q:1"}, "https://h/x", "http://p:1"),
        ({"all_proxy": "http://q:1"}, "https://h/x", "http://q:1"),
        ({"https_proxy": " http://p:1 "}, "https://h/x", "http://p:1"),
        ({"https_proxy": ""}, "https://h/x", None),
        ({"https_proxy": "http://p:1/"}, "https://h/x", "http://p:1/"),
        ({"https_proxy": "https://p:1"}, "https://h/x", "https://p:1"),
        ({"https_proxy": "http://p:1", "NO_PROXY": "h"}, "https://h/x", None),
        ({"https_proxy": "http://p:1", "no_proxy": "*"}, "https://h/x", None),
        ({"https_proxy": "http://p:1", "no_proxy": "other"}, "https://h/x", "http://p:1"),
        ({"proxy": "http://p:1", "my_proxy_url": "http://p:1"}, "https://h/x", None),
    ],
)
def test_the_proxy_of_the_environment_is_that_of_the_scheme_or_of_all(environment, url, proxy):
    assert settings().proxy_for(url, environment) == proxy


def test_the_environment_is_that_of_the_process_unless_another_is_given(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert settings().proxy_for("https://h/x") is None
    monkeypatch.setenv("https_proxy", "http://p:1")
    assert settings().proxy_for("https://h/x") == "http://p:1"
    monkeypatch.setenv("no_proxy", "h")
    assert settings().proxy_for("https://h/x") is None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/env.pem")
    assert settings().trusted_certificates() == "/env.pem"


@pytest.mark.parametrize(
    "proxy",
    [
        "http://p:1/",
        "https://p",
        "http://user:%C3%A4@p:1",
        "http://user:p%2Fw@p:1",
        "http://user@p:1",
        "p",
        "p:1/",
    ],
)
def test_a_proxy_that_both_libraries_can_use_passes(proxy):
    assert settings(proxy=proxy).proxy == (proxy if "://" in proxy else f"http://{proxy}")


def test_where_a_proxy_is_wrong_it_is_said_which_one():
    with pytest.raises(RequestInvalid) as caught:
        settings(environment={"https_proxy": "http://p:0"})
    assert caught.value.message.startswith("The environment has a https_proxy that cannot be used.")
    assert caught.value.message.endswith("The connection's own proxy wins over the environment's.")
    assert caught.value.fields == ("proxy",)


def test_certificates_of_the_environment_are_named_with_both_variables():
    with pytest.raises(RequestInvalid) as caught:
        settings(environment={"CURL_CA_BUNDLE": "/no"})
    assert caught.value.message.startswith(
        "The environment names '/no' as its REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE, and that cannot be used"
    )
    assert caught.value.fields == ("ca_bundle",)
    assert settings(environment={"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": certifi.where()}) == settings()


def test_a_file_without_certificates_is_told_from_one_that_cannot_be_read(tmp_path):
    empty = tmp_path / "empty.pem"
    empty.touch()
    for path, why in ((empty, "it holds no certificate in PEM format"), (tmp_path, "Is a directory")):
        with pytest.raises(RequestInvalid, match=f"cannot be used on this machine: {why}"):
            settings(ca_bundle=str(path))
