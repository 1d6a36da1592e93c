# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Requests as values."""

from __future__ import annotations

import pytest

from pictory_provider.api import endpoints
from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import ImageRequest


def test_submitting_a_picture_is_the_only_post():
    request = endpoints.generate_image(ImageRequest(prompt="A lighthouse"))
    assert (request.method, request.path) == ("POST", "/v1/aistudio/images")
    assert request.json == {"prompt": "A lighthouse", "model": "seedream3.0"}
    reading = [
        endpoints.get_job("a"),
        endpoints.list_images(),
        endpoints.list_jobs(),
        endpoints.get_quota(),
        endpoints.get_credit_usage(),
    ]
    assert {each.method for each in reading} == {"GET"}
    assert all(each.json is None for each in reading)


def test_a_strange_job_id_stays_one_segment_of_the_path():
    assert endpoints.get_job("../quota?x=1").path == "/v1/jobs/..%2Fquota%3Fx%3D1"
    assert endpoints.clean_job("a/b").path == "/v1/jobs/a%2Fb/clean"


@pytest.mark.parametrize("endpoint", [endpoints.list_images, endpoints.list_jobs])
def test_a_page_key_goes_into_the_query(endpoint):
    assert endpoint("abc=").query == {"nextPageKey": "abc="}
    assert endpoint().query == {}


def test_a_month_of_the_ledger_is_asked_for_with_its_year():
    assert endpoints.get_credit_usage(2026, 4).query == {"year": "2026", "month": "4"}


@pytest.mark.parametrize("month", range(1, 13))
def test_every_month_of_the_year_may_be_asked_for(month):
    assert endpoints.get_credit_usage(month=month).query == {"month": str(month)}


@pytest.mark.parametrize(("year", "month"), [(2026, None), (2026, 0), (None, 13), (2026, -1)])
def test_a_year_without_a_month_and_a_month_that_is_none_are_refused(year, month):
    with pytest.raises(RequestInvalid):
        endpoints.get_credit_usage(year, month)


def test_only_a_picture_is_paid_for():
    assert endpoints.generate_image(ImageRequest(prompt="A lighthouse")).is_paid
    assert not endpoints.generate_upload_url("lamp.png", "image/png").is_paid
    assert not endpoints.clean_job("j").is_paid


def test_each_endpoint_has_its_method_and_its_documented_path():
    assert {
        (request.method, request.path)
        for request in (
            endpoints.generate_image(ImageRequest(prompt="A lighthouse")),
            endpoints.generate_upload_url("lamp.png", "image/png"),
            endpoints.list_images(),
            endpoints.get_job(" j "),
            endpoints.list_jobs(),
            endpoints.clean_job("j"),
            endpoints.get_quota(),
            endpoints.get_credit_usage(),
        )
    } == {
        ("POST", "/v1/aistudio/images"),
        ("POST", "/v1/media/generateurl"),
        ("GET", "/v1/aistudio/images"),
        ("GET", "/v1/jobs/j"),
        ("GET", "/v1/jobs"),
        ("DELETE", "/v1/jobs/j/clean"),
        ("GET", "/v1/quota"),
        ("GET", "/v1/aicredits/usage"),
    }
    assert endpoints.get_quota().query == endpoints.get_credit_usage().query == {}


@pytest.mark.parametrize("endpoint", [endpoints.get_job, endpoints.clean_job])
def test_a_job_without_an_id_is_not_asked_for(endpoint):
    with pytest.raises(RequestInvalid, match="job_id is missing"):
        endpoint("None")


@pytest.mark.parametrize(
    ("year", "month", "why"),
    [
        (
            2026,
            None,
            "year 2026 came without a month, which Pictory refuses. No request was made.",
        ),
        (2026, 0, "month 0 is not within 1 to 12. No request was made."),
        (None, 13, "month 13 is not within 1 to 12. No request was made."),
    ],
)
def test_the_error_of_a_wrong_month_says_what_is_wrong(year, month, why):
    with pytest.raises(RequestInvalid) as caught:
        endpoints.get_credit_usage(year, month)
    assert caught.value.message.startswith(why)
    assert caught.value.fields == ("month",)
