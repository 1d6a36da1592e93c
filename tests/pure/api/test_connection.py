# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The fields of a connection are checked."""

from __future__ import annotations

import json

import certifi
import pytest

from pictory_provider import __version__
from pictory_provider.api.connection import (
    CONNECT_TIMEOUT,
    DEFAULT_BASE_URL,
    MAX_CONNECTIONS,
    MAX_REQUESTS_PER_SECOND,
    ConnectionSettings,
)
from pictory_provider.api.errors import AuthenticationError, PictoryError, RequestInvalid
from pictory_provider.api.extra import FIELDS, LIMITS, OLD_PREFIX, extra_of
from pictory_provider.api.network import CA_VARIABLES, without_credentials
from pictory_provider.hooks.connection import not_defined, why_unreadable

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
    assert settings().trusted_certificates({"SSL_CERT_FILE": "/ssl.pem"}) == "/ssl.pem"
    assert settings().trusted_certificates({**environment, "SSL_CERT_FILE": "/ssl.pem"}) == "/env.pem"
    assert settings().trusted_certificates({}) is None


@pytest.mark.parametrize("variable", CA_VARIABLES)
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
    with pytest.raises(RequestInvalid, match=f"The environment has a {variable.lower()}.*not SOCKS") as caught:
        settings(environment={variable: "socks5://user:secret@proxy:1080"})
    assert "secret" not in str(caught.value)
    assert "A proxy in the connection takes precedence" in str(caught.value)


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
    for wrong in (most + 0.01, 0, -1, "many", 10**400):
        with pytest.raises(RequestInvalid, match=name):
            settings(**{name: wrong})


def test_a_connection_is_given_up_after_ten_seconds():
    assert CONNECT_TIMEOUT == 10


@pytest.mark.parametrize("password", ["se/cret", "1/secret", "se#cret", "se?cret", "se cret"])
def test_an_error_about_a_proxys_password_does_not_show_it(password):
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
def test_a_limit_that_is_not_a_number_is_refused(name, value):
    with pytest.raises(RequestInvalid, match=f"as its {name}. No request was made.") as caught:
        settings(**{name: value})
    assert caught.value.fields == (name,)
    assert "Connection 'pictory_default' has" in caught.value.message


@pytest.mark.parametrize(
    "name",
    [
        "credit_per_day",
        "credits_per_week",
        "Credits_per_day",
        "CREDITS_PER_DAY",
        "credits-per-day",
        " credits_per_day",
        "CREDIT",
        "credits",
        "max_credits",
        "daily_credits",
        "budget",
        "monthlyBudget",
        "daily_limit",
        "quota",
        "max_cost",
        "spending",
        "price",
        "reserve",
        "per_day",
        "crdits_per_day",
        "cedits_reserv",
        "extra__pictory__budget",
        "extra__pictory__Credits_per_day",
        "EXTRA__PICTORY__CREDITS_PER_DAY",
        "extra__other__credits_per_day",
    ],
)
@pytest.mark.parametrize("value", [0, "0", None])
def test_a_limit_under_an_unknown_name_is_refused(name, value):
    with pytest.raises(RequestInvalid) as caught:
        settings(**{"user_agent": "x", name: value})
    assert caught.value.fields == (name,)
    assert f"has {name!r} in its extra, which is none of credits_per_day, credits_per_month, credits_reserve" in (
        caught.value.message
    )


@pytest.mark.parametrize("value", [{"credits_per_day": 0}, {"a": {"max_credits": 0}}, {"extra": {"Budget": 1}}])
def test_a_limit_within_another_key_is_refused_and_the_key_is_named(value):
    with pytest.raises(RequestInvalid, match="has 'pictory' in its extra, which is none of credits_per_day"):
        settings(pictory=value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", 7),
        ("user_agent", "mine"),
        ("proxy", "http://proxy:3128"),
        ("ca_bundle", certifi.where()),
        ("requests_per_second", "2"),
        ("credits_per_day", 0),
        ("credits_per_month", "0"),
        ("credits_reserve", 400),
    ],
)
def test_every_field_is_read_under_the_name_that_old_forms_wrote(name, value):
    old = settings(**{OLD_PREFIX + name: value})
    assert old == settings(**{name: value}) != settings()
    assert old.notes == ()
    assert settings(**{OLD_PREFIX + name: value, name: ""}) == old
    assert settings(**{OLD_PREFIX + name: None, name: value}) == old
    assert settings(**{OLD_PREFIX + name: f" {value} ", name: value}) == old


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_set_twice_and_differently_is_refused_without_its_values(name):
    with pytest.raises(RequestInvalid, match=f"has both '{name}' and 'extra__pictory__{name}'") as caught:
        settings(**{name: "50-one", OLD_PREFIX + name: "0-two"})
    assert caught.value.fields == (name,)
    assert "-one" not in caught.value.message
    assert "-two" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Timeout", "timeout"),
        ("user-agent", "user_agent"),
        ("userAgent", "user_agent"),
        ("PROXY", "proxy"),
        ("ca_bundel", "ca_bundle"),
        ("request_per_second", "requests_per_second"),
        ("extra__pictory__Proxy", "proxy"),
    ],
)
def test_a_name_near_to_a_field_is_ignored_with_a_note_that_does_not_show_its_value(name, meant):
    found = settings(**{name: "secret"})
    assert found == settings()
    assert found.notes == (
        f"Connection 'pictory_default' has {name!r} in its extra, which is not read. Did you mean {meant!r}?",
    )


def test_keys_that_do_not_look_like_a_limit_are_accepted():
    assert settings(cred="x", note="y", team={"name": "covers"}, region="eu-west-1", Owner=None) == settings()
    assert settings(cred="x", note="y", team="covers").notes == ()
    assert LIMITS == ("credits_per_day", "credits_per_month", "credits_reserve")


@pytest.mark.parametrize(
    ("extra", "value"),
    [(None, {}), ("", {}), ("  ", {}), ("{}", {}), ('{"credits_per_day": 50}', {"credits_per_day": 50})],
)
def test_an_extra_is_a_json_object_or_empty(extra, value):
    assert extra_of("c", extra) == value


@pytest.mark.parametrize("extra", ["{", "[]", "7", "null", '"x"', "credits_per_day=50"])
def test_an_extra_that_is_not_a_json_object_is_refused(extra):
    with pytest.raises(
        RequestInvalid,
        match=r"a limit on spending in it would be ignored\. No request was made\.",
    ) as caught:
        extra_of("my_own", extra)
    assert caught.value.fields == ("extra",)
    assert "Connection 'my_own' has an extra that is not a JSON object" in caught.value.message
    assert '{"credits_per_day": 50}' in caught.value.message


# The other fields ----------------------------------------------------------------------------------------


def test_the_defaults_and_bounds_of_a_connection_are_the_documented_ones():
    found = settings()
    assert (found.timeout, found.requests_per_second, found.proxy, found.ca_bundle) == (60, 10, None, None)
    assert (MAX_REQUESTS_PER_SECOND, MAX_CONNECTIONS) == (1_000, 50)
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
        ("requests_per_second", "polls per second, above 0 and up to 1000; the default is 10."),
    ],
)
def test_an_out_of_range_number_names_its_bounds(name, takes):
    with pytest.raises(RequestInvalid) as caught:
        settings(**{name: 0})
    assert caught.value.message == (
        f"Connection 'pictory_default' has 0 as its {name}. No request was made. The extra field takes {takes}"
    )


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"user_agent": ["x"]}, "has a value of type list as its user_agent"),
        ({"proxy": ["x"]}, "has a value of type list as its proxy"),
        ({"proxy": "ftp://p"}, "has a proxy that cannot be used"),
        (
            {"ca_bundle": "/no"},
            "names '/no' as its ca_bundle, and that cannot be used on this machine: No such file",
        ),
        ({"user_agent": "\u00e4"}, "has characters in its user_agent that an HTTP header cannot carry"),
    ],
)
def test_the_error_of_a_field_names_its_connection(extra, told):
    with pytest.raises(RequestInvalid) as caught:
        settings(**extra)
    assert f"Connection 'pictory_default' {told}" in caught.value.message
    assert "A proxy in the connection takes precedence" not in caught.value.message


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
def test_bearer_is_refused_in_any_case(password):
    with pytest.raises(AuthenticationError, match="Connection 'pictory_default' has `Bearer` before"):
        settings(password)


@pytest.mark.parametrize("password", ["a b", "a\tb", "a\x7fb", "a\u00e4"])
def test_a_key_with_invalid_characters_names_its_connection(password):
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


@pytest.mark.parametrize(
    ("excluded", "host", "is_direct"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "10.example", False),
        ("a.example, 192.168.7.9/16 ,b", "192.168.1.1:8443", True),
        ("192.168.1.1", "192.168.1.1", True),
        ("192.168.1.1", "192.168.1.10", False),
        ("*", "192.168.1.1", True),
        ("fd00::/8", "[fd00::1]:8443", True),
        ("[fd00::1]", "[fd00::1]", True),
        ("fd00::/8", "[fe80::1]", False),
        ("fd00::/8", "10.0.0.1", False),
        ("10.0.0.0/99,,/,::/", "10.0.0.1", False),
        ("example", "api.example", True),
        (".example", "api.example:8443", True),
    ],
)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_a_host_of_a_network_that_is_excluded_is_reached_without_a_proxy(
    monkeypatch, name, excluded, host, is_direct
):
    expected = None if is_direct else "http://p:1"
    environment = {"https_proxy": "http://p:1", name: excluded}
    assert settings().proxy_for(f"https://{host}/x", environment) == expected
    for each in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(each, raising=False)
    for each, value in environment.items():
        monkeypatch.setenv(each, value)
    assert settings().proxy_for(f"https://{host}/x") == expected


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("http://user:secret@proxy.example:3128/", "proxy.example:3128"),
        ("http://proxy.example", "proxy.example:80"),
        ("https://user@proxy.example", "proxy.example:443"),
        ("http://u:p@[fd00::1]:3128", "[fd00::1]:3128"),
    ],
)
def test_a_proxy_is_shown_by_host_and_port_alone(proxy, shown):
    assert without_credentials(proxy) == shown


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


def test_the_error_names_the_wrong_proxy():
    with pytest.raises(RequestInvalid) as caught:
        settings(environment={"https_proxy": "http://p:0"})
    assert caught.value.message.startswith("The environment has a https_proxy that cannot be used.")
    assert caught.value.message.endswith("A proxy in the connection takes precedence over the environment's.")
    assert caught.value.fields == ("proxy",)


def test_certificates_of_the_environment_are_named_with_the_variable_that_decides():
    with pytest.raises(RequestInvalid) as caught:
        settings(environment={"CURL_CA_BUNDLE": "/no"})
    assert caught.value.message.startswith(
        "The environment names '/no' as its CURL_CA_BUNDLE, and that cannot be used"
    )
    assert caught.value.fields == ("ca_bundle",)
    assert settings(environment={"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": certifi.where()}) == settings()


def test_a_file_without_certificates_and_an_unreadable_one_have_different_errors(tmp_path):
    empty = tmp_path / "empty.pem"
    empty.touch()
    for path, why in ((empty, "it contains no certificate in PEM format"), (tmp_path, "Is a directory")):
        with pytest.raises(RequestInvalid, match=f"cannot be used on this machine: {why}"):
            settings(ca_bundle=str(path))


# What Airflow cannot read --------------------------------------------------------------------------------

CANARY = "canary84a"
UNREADABLE = {
    "an unknown key": (
        {"conn_type": "pictory", "colour": CANARY},
        "has the field 'colour', which Airflow does not",
    ),
    "the id again": ({"conn_id": CANARY}, "has the field 'conn_id'"),
    "a numeric password": ({"password": 8472}, "has a number as its 'password', which has to be a string"),
    "a list for a password": ({"password": [CANARY]}, "has a list as its 'password'"),
    "a boolean host": ({"host": True}, "has true or false as its 'host'"),
    "a numeric type": ({"conn_type": 8472}, "has a number as its 'conn_type'"),
    "a port with a letter": ({"port": CANARY}, "has a 'port' that is not a whole number"),
    "a list for a port": ({"port": [8472]}, "has a 'port' that is not a whole number"),
    "a numeric extra": ({"extra": 8472}, "has a number as its 'extra', which has to be an object"),
    "half an object": ('{"password": "canary84a', "begins with a brace and is not JSON"),
    "too deep an object": ('{"extra": ' + "[" * 100_000, "begins with a brace and is not JSON"),
    "a URI with an odd port": ("pictory://:canary84a@h:84a/", "has a port in its URI that is not a whole number"),
    "a URI with a large port": (
        "pictory://:canary84a@h:99999/",
        "has a port in its URI that is not a whole number",
    ),
    "a URI with a slash in its password": ("pictory://:84a72/canary84a@h", "has a port in its URI"),
    "a URI with three protocols": ("pictory://a://b://canary84a", "has '://' more than twice in its URI"),
    "a URI with a bracket": ("pictory://:canary84a@[h/", "has an invalid host in its URI"),
    "a URI with a user too early": ("pictory://canary84a@https://h", "has a user or a password before the second"),
}


@pytest.mark.parametrize(("value", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_the_error_of_an_unreadable_variable_names_its_field_without_its_value(value, why):
    text = value if isinstance(value, str) else json.dumps(value)
    message = not_defined("my_own", {"AIRFLOW_CONN_MY_OWN": text}).message
    assert f"The environment variable AIRFLOW_CONN_MY_OWN is set on this machine, but it {why}" in message
    assert message.startswith("Airflow ignores connection 'my_own', so there is no API key. No request was")
    assert CANARY not in message
    assert "8472" not in message


@pytest.mark.parametrize(
    "value",
    [
        "",
        '{"conn_type": "pictory", "password": "k", "host": null, "port": "80", "extra": "{}", "login": ""}',
        '{"password": "k", "port": 0, "extra": {"timeout": 5}, "schema": "x", "description": "d"}',
        "pictory://:k@h:8080/s?timeout=5",
        "pictory://:k@https%3A%2F%2Fh/",
        "pictory://https://:k@h:1/",
        "pictory://:k@/?__extra__=%7B%7D",
    ],
)
def test_a_variable_that_airflow_reads_has_nothing_wrong_with_it(value):
    assert why_unreadable("my_own", {"AIRFLOW_CONN_MY_OWN": value}) is None
    told = not_defined("my_own", {"AIRFLOW_CONN_MY_OWN": value}).message
    assert "Airflow has no connection 'my_own', so there is no API key. No request was made." in told
    assert ("AIRFLOW_CONN_MY_OWN is set on this machine" in told) is bool(value)
