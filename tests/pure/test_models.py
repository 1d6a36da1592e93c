# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""What may be asked for."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from pictory_provider.api.checks import check_job_id, without_query
from pictory_provider.api.connection import ConnectionSettings
from pictory_provider.api.endpoints import Request
from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import (
    MODELS,
    STYLES,
    GeneratedImage,
    ImageRequest,
    Job,
    JobState,
    Quota,
)
from pictory_provider.api.responses import Response
from pictory_provider.jobs.evidence import Evidence
from pictory_provider.jobs.submission import Submission, asked_for

PROMPT = "A lighthouse at dawn"
# https://docs.pictory.ai/api-reference/ai-studio/generate-image, "Credits"
PRICES = {"seedream3.0": 2, "flux-schnell": 0.6, "nanobanana": 4, "nanobanana-pro": 14}


def test_the_prices_are_those_of_the_vendors_page():
    assert {model: ImageRequest(prompt=PROMPT, model=model).credits for model in MODELS} == PRICES


def test_a_model_that_is_not_listed_has_no_known_price():
    assert ImageRequest(prompt=PROMPT, model="dall-e-9", allow_unlisted=True).credits is None


@pytest.mark.parametrize(
    "value",
    [
        ImageRequest(prompt=PROMPT),
        Job(job_id="j"),
        GeneratedImage(id=None, url=None),
        Quota(ai_credits_used=1, ai_credits_limit=2, raw={}),
        Response(200, {}, b""),
        Request("GET", "/"),
        Evidence(since=None, credits_before=None, credits_now=None, matches=None),
        ConnectionSettings.from_fields("c", password="k", host=None, extra={}, environment={}),
        Submission(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_takes_no_other_field_and_cannot_be_changed(value):
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, "another")
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize(
    "cls", [ImageRequest, Job, GeneratedImage, Quota, Evidence, ConnectionSettings, Submission]
)
def test_values_of_many_fields_are_made_by_name(cls):
    assert all(field.kw_only for field in dataclasses.fields(cls))


@pytest.mark.parametrize("length", [5, 5_000])
def test_a_prompt_of_the_documented_length_passes(length):
    assert len(ImageRequest(prompt="x" * length).body()["prompt"]) == length


@pytest.mark.parametrize("prompt", ["", "    ", "four", "x" * 5_001, None, "None", 12345, ["a", "list"], b"bytes"])
def test_a_prompt_that_pictory_would_not_take_is_refused_with_the_limits(prompt):
    with pytest.raises(RequestInvalid, match="5 to 5,000 characters") as caught:
        ImageRequest(prompt=prompt)
    assert caught.value.fields == ("prompt",)
    assert "nothing was spent" in str(caught.value)


def test_a_prompt_whose_template_found_nothing_says_so():
    with pytest.raises(RequestInvalid, match="its template found nothing"):
        ImageRequest(prompt="None")


def test_an_unlisted_model_may_have_any_ratio_where_pictory_is_to_decide():
    made = ImageRequest(prompt=PROMPT, model="dall-e-9", aspect_ratio="21:9", allow_unlisted=True)
    assert made.body()["aspectRatio"] == "21:9"


@pytest.mark.parametrize("url", ["", "None"])
def test_a_url_whose_template_found_nothing_says_so(url):
    with pytest.raises(RequestInvalid, match="webhook is empty; a template that finds nothing"):
        ImageRequest(prompt=PROMPT, webhook=url)


def test_every_documented_model_style_and_ratio_passes():
    for model, style in itertools.product(MODELS, STYLES):
        for ratio in MODELS[model].aspect_ratios:
            assert ImageRequest(prompt=PROMPT, model=model, style=style, aspect_ratio=ratio).body() == {
                "prompt": PROMPT,
                "model": model,
                "style": style,
                "aspectRatio": ratio,
            }


@pytest.mark.parametrize(
    ("field", "value", "supported"),
    [
        ("model", "dall-e-9", "seedream3.0, flux-schnell"),
        ("style", "baroque", "photorealistic, artistic"),
        ("aspect_ratio", "21:9", "1:1, 16:9, 9:16"),
        ("model", "None", "seedream3.0"),
        ("style", "", "photorealistic"),
        ("model", None, "seedream3.0"),
    ],
)
def test_an_unknown_model_style_or_ratio_is_refused_with_what_is_supported(field, value, supported):
    with pytest.raises(RequestInvalid) as caught:
        ImageRequest(prompt=PROMPT, **{field: value})
    assert caught.value.fields == (field,)
    assert repr(value) in str(caught.value)
    assert supported in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("model", "dall-e-9"), ("style", "baroque"), ("aspect_ratio", "21:9")]
)
def test_allow_unlisted_lets_what_is_newer_than_this_release_pass(field, value):
    assert value in ImageRequest(prompt=PROMPT, allow_unlisted=True, **{field: value}).body().values()


@pytest.mark.parametrize("value", ["", "None", None, 5])
def test_allow_unlisted_lets_nothing_pass_that_is_no_name(value):
    with pytest.raises(RequestInvalid):
        ImageRequest(prompt=PROMPT, allow_unlisted=True, model=value)


@pytest.mark.parametrize("field", ["reference_image_url", "webhook"])
@pytest.mark.parametrize(
    "url",
    [
        "picture.png",
        "/a/picture.png",
        "ftp://example.com/a.png",
        "https://",
        "https:///a.png",
        "https://example.com/a picture.png",
        "https://exa mple.com/",
        "https://example.com/a.png\n",
        "https://example.com:port/",
        "https://[::1/",
        "",
        "None",
        7,
    ],
)
def test_a_url_that_is_not_absolute_http_is_refused(field, url):
    with pytest.raises(RequestInvalid) as caught:
        ImageRequest(prompt=PROMPT, **{field: url})
    assert caught.value.fields == (field,)


def test_the_text_of_a_refused_url_hides_its_query_and_its_password():
    with pytest.raises(RequestInvalid) as caught:
        ImageRequest(prompt=PROMPT, webhook="ftp://user:secret@example.com/hook?token=secret")
    assert "secret" not in str(caught.value)
    assert "ftp://example.com/hook" in str(caught.value)


def test_a_body_holds_documented_names_only_and_nothing_that_was_not_asked_for():
    request = ImageRequest(
        prompt=PROMPT,
        reference_image_url="https://example.com/a.png?v=2",
        webhook="https://example.com/hook",
        allow_unlisted=True,
    )
    assert request.body() == {
        "prompt": PROMPT,
        "model": "seedream3.0",
        "referenceImageUrl": "https://example.com/a.png?v=2",
        "webhook": "https://example.com/hook",
    }


@pytest.mark.parametrize("job_id", [None, "", "  ", "None", 5])
def test_a_missing_job_id_is_refused(job_id):
    with pytest.raises(RequestInvalid, match="job_id is missing"):
        check_job_id(job_id)


def test_a_job_id_of_another_form_is_for_pictory_to_decide():
    assert check_job_id(" job-17 ") == "job-17"


@pytest.mark.parametrize(
    ("status", "success", "state"),
    [
        ("in-progress", True, JobState.IN_PROGRESS),
        ("completed", True, JobState.COMPLETED),
        ("completed", None, JobState.COMPLETED),
        ("completed", False, JobState.FAILED),
        ("failed", True, JobState.FAILED),
        ("cleaned", True, JobState.CLEANED),
        ("COMPLETED", True, JobState.UNKNOWN),
        (None, True, JobState.UNKNOWN),
    ],
)
def test_status_and_success_together_say_how_a_job_stands(status, success, state):
    assert Job(job_id="1", status=status, success=success).state is state


def test_the_image_record_invents_nothing():
    assert Job(job_id="1", status="completed").record() == {
        "job_id": "1",
        "status": "completed",
        "url": None,
        "width": None,
        "height": None,
        "ai_credits_used": None,
    }


def test_a_logged_url_has_no_query_fragment_or_credentials():
    assert without_query("https://h/a?b?c#d#e") == "https://h/a"
    assert without_query("https://u:p@example.com/a.png?X-Signature=1#top") == "https://example.com/a.png"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://user:secret@h/a.png?signature=x#y", "https://h/a.png"),
        ("s3://media@bucket/mug#1.png", "s3://bucket/mug#1.png"),
        ("gs://bucket/a?b.png", "gs://bucket/a?b.png"),
    ],
)
def test_a_reference_image_is_named_without_what_is_secret_and_with_all_that_names_it(url, told):
    request = ImageRequest(prompt="A lighthouse at dawn", reference_image_url=url)
    assert asked_for(request)["referenceImageUrl"] == told


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "/srv/a.png", "s3://bucket", "s3:///a.png", "ftp://h/a.png"]
)
def test_a_reference_image_is_a_url_of_the_web_or_an_object(url):
    with pytest.raises(RequestInvalid, match="reference_image_url"):
        ImageRequest(prompt="A lighthouse at dawn", reference_image_url=url)
