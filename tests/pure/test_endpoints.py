# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Requests as values."""

from __future__ import annotations

import pytest

from pictory_provider.api import endpoints
from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import ImageRequest


def test_buying_a_picture_is_the_only_post():
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
