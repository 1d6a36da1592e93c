# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Requests, jobs and other values of the API."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from pictory_provider.api.checks import (
    PROMPT_MAX,
    PROMPT_MIN,
    UPLOAD_HINT,
    check_job_id,
    check_listed,
    check_prompt,
    check_reference,
    check_url,
    is_object,
    is_upload,
    public_name,
    upload_name,
    without_queries,
    without_query,
)
from pictory_provider.api.connection import ConnectionSettings
from pictory_provider.api.endpoints import Request
from pictory_provider.api.errors import RequestInvalid
from pictory_provider.api.models import (
    DEFAULT_MODEL,
    MODELS,
    STYLES,
    GeneratedImage,
    ImageRequest,
    Job,
    JobState,
    Quota,
)
from pictory_provider.api.responses import Response
from pictory_provider.api.timing import TIMING
from pictory_provider.core.attempt import MadeBy
from pictory_provider.core.batch.events import JobsEvent
from pictory_provider.core.batch.journal import Entry, Header, Journal
from pictory_provider.core.batch.resume import ResumedBatch, open_batch
from pictory_provider.core.batch.rows import Row, RowBuilder
from pictory_provider.core.evidence import Evidence
from pictory_provider.core.ledger import Charge
from pictory_provider.core.sidecar import Sidecar
from pictory_provider.core.submission import Submission, canonical_request, is_same_request
from tests.pure.core.batch.tables import built

PROMPT = "A lighthouse at dawn"
OPENING = open_batch(
    None,
    {},
    built([PROMPT]),
    folder="/f",
    made_by={},
    max_tries=0,
    retries=0,
)
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
        Sidecar(file="a.png", submission=Submission(), made_by=MadeBy("d", "r", "t", -1)),
        OPENING,
        OPENING.journal.header,
        OPENING.rows[0],
        Entry.intent(OPENING.rows[0], Charge(1.0, 2.0), tried=1),
        RowBuilder(conn_id="c"),
        JobsEvent(of=0, ended=0, at=0.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_takes_no_other_field_and_cannot_be_changed(value):
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, "another")
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize(
    "cls",
    [
        ImageRequest,
        Job,
        GeneratedImage,
        Quota,
        Evidence,
        ConnectionSettings,
        Submission,
        Sidecar,
        ResumedBatch,
        Header,
        Row,
        Entry,
        RowBuilder,
        JobsEvent,
        Journal,
    ],
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
    with pytest.raises(RequestInvalid, match="webhook is empty; a template renders to that if it finds nothing"):
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


def test_a_body_has_only_documented_names_and_the_fields_that_are_set():
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
def test_status_and_success_together_give_the_state(status, success, state):
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
    assert canonical_request(request)["referenceImageUrl"] == told


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "/srv/a.png", "s3://bucket", "s3:///a.png", "ftp://h/a.png"]
)
def test_a_reference_image_is_a_url_of_the_web_or_an_object_or_an_upload(url):
    with pytest.raises(RequestInvalid, match="reference_image_url"):
        ImageRequest(prompt="A lighthouse at dawn", reference_image_url=url)


def refusal(check, *args, **more):
    with pytest.raises(RequestInvalid) as caught:
        check(*args, **more)
    return caught.value


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        (None, "is None: the upstream task returned nothing"),
        (7, "is of type int, not a string"),
        ("  ", "rendered to '  ': its template found nothing"),
        (" None ", "rendered to ' None ': its template found nothing"),
        (" abcd ", "has 4 characters"),
        ("x" * 5_001, "has 5,001 characters"),
    ],
)
def test_the_error_of_a_prompt_says_what_is_wrong(prompt, problem):
    assert refusal(check_prompt, prompt).message == (
        f"prompt {problem}; Pictory takes 5 to 5,000 characters. Nothing was sent and nothing was spent."
    )
    assert (PROMPT_MIN, PROMPT_MAX) == (5, 5_000)


def test_blanks_around_a_prompt_do_not_make_it_long_enough_and_count_for_the_limit():
    check_prompt("  abcde  ")
    assert "has 5,001 characters" in refusal(check_prompt, " " + "x" * 5_000).message


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (7, "is of type int, not a string: got 7"),
        ("", "is empty; a template renders to that if it finds nothing: got ''"),
        ("https://h/a b", "contains blanks; write them as %20: got 'https://h/a b'"),
        ("https://h/a\x01b", "contains blanks"),
        ("https://h:port/", "is not a URL (Port could not be cast to integer value"),
        ("ftp://h/a", "does not begin with http:// or https://: got 'ftp://h/a'"),
        ("https:///a", "has no host: got 'https:///a'"),
    ],
)
def test_the_error_of_a_url_names_its_field(url, problem):
    error = refusal(check_url, "webhook", url)
    assert error.message.startswith(f"webhook {problem}")
    assert error.message.endswith("Nothing was sent and nothing was spent. Use an absolute http(s) URL.")
    assert error.fields == ("webhook",)


@pytest.mark.parametrize("url", ["http://h", "HTTPS://h/a?b#c", "https://u:p@h:1/!", "https://h/\u00e4"])
def test_an_absolute_url_of_the_web_passes_as_it_is(url):
    assert check_url("webhook", url) == url
    assert check_reference("reference_image_url", url) == url


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("s3://bucket/key.png", True),
        ("gs://b/k", True),
        ("s3://bucket/a b#1?.png", True),
        ("s3://bucket/", False),
        ("s3://bucket", False),
        ("s3:///key", False),
        ("bucket/key", False),
        ("http://h/a", False),
        ("HTTPS://h/a", False),
        ("file://h/a", False),
        ("ftp://h/a", False),
    ],
)
def test_storage_objects_and_web_urls_are_distinguished(url, is_one):
    assert is_object(url) is is_one
    if is_one:
        assert check_reference("reference_image_url", url) == url


@pytest.mark.parametrize("url", ["s3://b/a\n.png", "s3://b/a\x1f", 7, None])
def test_an_object_with_control_characters_is_refused(url):
    assert refusal(check_reference, "reference_image_url", url).fields == ("reference_image_url",)
    assert check_reference("reference_image_url", "s3://b/a .png") == "s3://b/a .png"


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        (7, 7),
        (None, None),
        ("a?b#c", "a"),
        ("https://u@h", "https://h"),
        ("https://h/a@b", "https://h/a@b"),
        ("//u:p@h/a", "//u:p@h/a"),
        ("https://h#a?b", "https://h"),
    ],
)
def test_only_what_may_be_secret_is_taken_from_a_url(url, bare):
    assert without_query(url) == bare


UPLOAD = upload_name("a?b#c.png", "0a" * 32)


def test_an_upload_is_named_by_its_content_in_all_records():
    request = ImageRequest(prompt="A lighthouse at dawn", reference_image_url=UPLOAD)
    assert UPLOAD.removeprefix("upload:a?b#c.png?sha256=") == "0a" * 32
    assert canonical_request(request)["referenceImageUrl"] == public_name(UPLOAD) == UPLOAD


def test_uploads_are_the_same_picture_by_name_and_content():
    def request(name, sha256):
        return {"prompt": "A lamp", "referenceImageUrl": upload_name(name, sha256)}

    assert is_same_request(request("a.png", "1" * 64), request("a.png", "1" * 64))
    assert not is_same_request(request("a.png", "1" * 64), request("a.png", "2" * 64))
    assert not is_same_request(request("a.png", "1" * 64), request("b.png", "1" * 64))


@pytest.mark.parametrize(
    "url",
    [
        *(UPLOAD[:-1], UPLOAD + "0", UPLOAD.upper(), "upload:?sha256=" + "0" * 64),
        *("upload:a/b?sha256=" + "0" * 64, "upload://a?sha256=" + "0" * 64, 7, None),
    ],
)
def test_what_is_not_an_upload_of_a_record_is_not_one(url):
    assert not is_upload(url)


@pytest.mark.parametrize("url", ["/srv/a.png", "file:///srv/a.png", "FILE:/srv/a.png"])
def test_the_refusal_of_a_local_file_says_how_to_upload_it_and_what_that_means(url):
    error = refusal(check_reference, "reference_image_url", url)
    assert error.message.startswith(f"reference_image_url {url!r} is a local file, and Pictory reads only public")
    assert error.message.endswith(UPLOAD_HINT)
    assert "Everyone who has the URL of an uploaded picture can see it" in UPLOAD_HINT


def test_the_name_of_an_object_keeps_all_but_its_user():
    assert public_name("s3://media@bucket/a?b#c@d") == "s3://bucket/a?b#c@d"
    assert public_name("https://u@h/a?b#c") == "https://h/a"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://h/a?sig=1 now", "see https://h/a?... now"),
        ("'https://h/a?b' \"http://i/?c\"", "'https://h/a?...' \"http://i/?...\""),
        ("https%3A%2F%2Fh%2Fa%3Fsig%3D1 x", "https%3A%2F%2Fh%2Fa?... x"),
        ("<s3+x://h/a?b>", "<s3+x://h/a?...>"),
        ("https://h/a#b", "https://h/a#b"),
        ("is it? yes", "is it? yes"),
        ("https://h/a?", "https://h/a?"),
    ],
)
def test_no_url_in_a_text_keeps_its_query(text, shown):
    assert without_queries(text) == shown


@pytest.mark.parametrize("job_id", [["a", "b"], ("a",), []])
def test_a_list_of_job_ids_is_to_be_mapped(job_id):
    error = refusal(check_job_id, job_id)
    assert error.message.startswith(f"job_id is a list of {len(job_id)}; it takes one jobId. No request was made.")
    assert error.fields == ("job_id",)
    assert refusal(check_job_id, b"a").message.startswith("job_id is missing: got b'a'. No request was made.")
    assert refusal(check_job_id, None).fields == ("job_id",)


def test_what_is_not_listed_is_refused_with_what_it_is_compared_with():
    error = refusal(check_listed, "style", "odd", ("a", "b"), allow_unlisted=False, owner=" of all")
    assert error.message.startswith("style 'odd' is not among those of all that this release knows: a, b. Nothing")
    error = refusal(check_listed, "style", 7, (), allow_unlisted=True)
    assert "is not among those that this release knows: none." in error.message
    check_listed("style", "odd", ("a",), allow_unlisted=True)
    check_listed("style", "a", ("a",), allow_unlisted=False)


def test_a_ratio_is_refused_with_its_model():
    with pytest.raises(RequestInvalid, match="is not among those of model 'nanobanana' that"):
        ImageRequest(prompt=PROMPT, model="nanobanana", aspect_ratio="1:2")


def test_models_and_styles_are_the_documented_ones():
    assert DEFAULT_MODEL == ImageRequest(prompt=PROMPT).model == "seedream3.0"
    assert {model.aspect_ratios for model in MODELS.values()} == {("1:1", "16:9", "9:16")}
    assert all(name == model.name for name, model in MODELS.items())
    assert STYLES == ("photorealistic", "artistic", "cartoon", "minimalist", "vintage", "futuristic")


def test_a_request_is_made_from_any_object_with_its_fields():
    class Holder:
        prompt, model, aspect_ratio, style = PROMPT, "newer", "9:16", "vintage"
        reference_image_url, webhook, allow_unlisted = "https://h/a.png", "https://h/hook", True
        other = 7

    assert ImageRequest.of(Holder) == ImageRequest(
        prompt=PROMPT,
        model="newer",
        aspect_ratio="9:16",
        style="vintage",
        reference_image_url="https://h/a.png",
        webhook="https://h/hook",
        allow_unlisted=True,
    )


def test_the_image_record_says_what_pictory_said():
    job = Job(
        job_id="j",
        status="completed",
        success=True,
        url="https://h/a.png",
        width=16,
        height=9,
        ai_credits_used=0.6,
        error_code="C",
        error_message="m",
    )
    assert job.record() == {
        "job_id": "j",
        "status": "completed",
        "url": "https://h/a.png",
        "width": 16,
        "height": 9,
        "ai_credits_used": 0.6,
    }


def test_a_journal_is_changed_in_place_and_takes_no_other_field():
    with pytest.raises(AttributeError):
        OPENING.journal.another = None
    OPENING.journal.unreadable = frozenset()


def test_the_times_that_the_provider_waits_can_be_changed_and_no_others_be_made():
    with pytest.raises(AttributeError):
        TIMING.another = 1.0
