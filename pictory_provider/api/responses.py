# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Read a reply: status, headers and body in, a value out, or an error of the tree.

The vendor's pages leave several shapes open. Every variant that its pages, its own script and its older
examples show is read; anything else is an error, and never a silent success.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pictory_provider.api.checks import without_queries, without_query
from pictory_provider.api.errors import (
    AuthenticationError,
    EdgeBlocked,
    ImageInvalid,
    JobNotFound,
    PictoryError,
    ProtocolError,
    RateLimited,
    RequestInvalid,
    Unavailable,
)
from pictory_provider.api.models import GeneratedImage, Job, Quota
from pictory_provider.api.retry import DEFINITE_4XX

if TYPE_CHECKING:
    from collections.abc import Mapping

EXCERPT = 200
"""How many characters of a strange reply an error text shows."""


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP reply as a value.

    :param headers: names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def parse_submission(response: Response) -> str:
    """Return the jobId of an accepted request.

    :raises ProtocolError: for a success without a readable jobId. The job may exist all the same.
    :raises PictoryError: for every other status, as :func:`check` tells them apart.
    """
    body = check(response)
    data = _mapping(body.get("data"))
    for holder in (data, body):
        for name in ("jobId", "job_id"):
            value = holder.get(name)
            if isinstance(value, str) and value.strip() not in ("", "None"):
                return value.strip()
    raise ProtocolError(
        f"Pictory answered {response.status} without a jobId: {_excerpt(response)}.", status=response.status
    )


def parse_job(response: Response, job_id: str) -> Job:
    """Return what Pictory says of a job: running, completed, failed or cleaned.

    A failed job comes with HTTP 200; the caller looks at :attr:`Job.state`.

    :raises JobNotFound: for 404, and for ``JOB_NOT_FOUND`` in any envelope with any status.
    :raises ProtocolError: for a reply that cannot be read, or that speaks of another job.
    """
    body = _json(response)
    holders = [_mapping(body.get("data")), _mapping(body.get("error")), body] if isinstance(body, dict) else []
    code = _text(_first(holders, "error_code", "errorCode"))
    message = _said(_first(holders, "error_message", "errorMessage"))
    if response.status == 404 or "JOB_NOT_FOUND" in (code, message):
        raise JobNotFound(
            f"Pictory knows no job {job_id!r} (HTTP {response.status}). Nothing was spent on asking. "
            "Check the id, and that the connection's key belongs to the account that submitted the job.",
            job=Job(job_id=job_id, error_code=code, error_message=message),
        )
    body = check(response)
    named = _text(_first(holders, "job_id", "jobId"))
    if named is not None and named.lower() != job_id.lower():
        raise ProtocolError(f"Asked for job {job_id}, Pictory answered for job {named}.", status=200)
    data = holders[0]
    success = body.get("success")
    return Job(
        job_id=job_id,
        status=_text(_first(holders, "status")),
        success=success if isinstance(success, bool) else None,
        url=_url(data.get("url")),
        width=_pixels(data.get("width")),
        height=_pixels(data.get("height")),
        ai_credits_used=_number(data.get("aiCreditsUsed")),
        error_code=code,
        error_message=message,
    )


def parse_quota(response: Response) -> Quota:
    """Return the subscription's AI credits.

    :raises ProtocolError: where ``aiCredits`` is missing or holds no numbers.
    """
    body = check(response)
    credits = _mapping(body.get("aiCredits"))
    used, limit = _number(credits.get("used")), _number(credits.get("limit"))
    if used is None or limit is None:
        raise ProtocolError(f"The quota came without AI credits: {_excerpt(response)}.", status=200)
    return Quota(ai_credits_used=used, ai_credits_limit=limit, raw=body)


def parse_images(response: Response) -> tuple[list[GeneratedImage], str | None]:
    """Return one page of the gallery and the key of the next page."""
    items, next_page_key = _items(response)
    return [
        GeneratedImage(
            id=_text(item.get("id")),
            url=_url(item.get("url")),
            prompt=_text(item.get("prompt")),
            model=_text(item.get("model")),
            aspect_ratio=_text(item.get("aspectRatio")),
            style=_text(item.get("style")),
            reference_image_url=_text(item.get("referenceImageUrl")),
            width=_pixels(item.get("width")),
            height=_pixels(item.get("height")),
            created_date=_text(item.get("createdDate")),
        )
        for item in items
    ], next_page_key


def parse_jobs(response: Response) -> tuple[list[dict[str, Any]], str | None]:
    """Return one page of jobs as Pictory writes them, and the key of the next page."""
    return _items(response)


def parse_credit_usage(response: Response) -> list[dict[str, Any]]:
    """Return the ledger's entries as Pictory writes them, newest first.

    :raises ProtocolError: for an entry that is no object: none may be left out of what was spent.
    """
    body: list[Any] = check(response, list)
    if not all(isinstance(entry, dict) for entry in body):
        raise ProtocolError(f"The ledger has an entry that is no object: {_excerpt(response)}.", status=200)
    return body


def parse_cleaned(response: Response) -> None:
    """Check that a clean-up was accepted.

    :raises ProtocolError: where the reply does not say so.
    """
    if check(response).get("success") is not True:
        raise ProtocolError(f"The clean-up was not confirmed: {_excerpt(response)}.", status=response.status)


def check_picture(response: Response, url: str) -> None:
    """Check that a picture's host serves it.

    :raises Unavailable: for 429 and 5xx; the same download may succeed later.
    :raises ImageInvalid: for every other status but 200.
    """
    status, where = response.status, without_query(url)
    if status >= 500 or status == 429:
        raise Unavailable(
            f"The picture's host could not answer ({status}) for {where} just now.",
            status=status,
            retry_after=response.headers.get("retry-after"),
        )
    if status != 200:
        raise ImageInvalid(
            f"The picture's host answered {status} for {where} this time. Result URLs do not live for ever: pass "
            "job_id instead of url, which asks Pictory for a fresh one."
        )


def check(response: Response, expected: type = dict) -> Any:
    """Return the JSON of a success, or raise what the status means.

    ======== =======================================================================
    200-299  the JSON, or :class:`ProtocolError` where it is none or of another type
    401      :class:`AuthenticationError`
    403      :class:`AuthenticationError` with JSON, :class:`EdgeBlocked` with a page
    429      :class:`RateLimited`
    4xx      :class:`RequestInvalid`
    5xx      :class:`Unavailable`, with its ``Retry-After``
    others   :class:`ProtocolError`
    ======== =======================================================================
    """
    body = _json(response)
    status = response.status
    if 200 <= status < 300:
        if not isinstance(body, expected):
            raise ProtocolError(
                f"Pictory answered {status} with something that is not the documented JSON: {_excerpt(response)}.",
                status=status,
            )
        return body
    raise _refusal(response, body)


def _refusal(response: Response, body: Any) -> PictoryError:
    status = response.status
    details = body if isinstance(body, dict) else {}
    message = (_said(details.get("message")) or _excerpt(response)).rstrip(".")
    retry_after = response.headers.get("retry-after")
    if status == 401:
        return AuthenticationError(
            "Pictory refused the API key (401). This request cost nothing. Was the key regenerated? Copy it from "
            "https://app.pictory.ai/api-access into the connection's password, without `Bearer`.",
            status=status,
        )
    if status == 403 and body is None:
        return EdgeBlocked(
            "The firewall in front of Pictory blocked this client (403 with a page instead of JSON). The "
            "API key is not the cause, and this request cost nothing. Set another `user_agent` in the "
            "connection's extra, or ask Pictory to let this machine's address pass. "
            f"It said: {_excerpt(response)}."
        )
    if status == 403:
        return AuthenticationError(
            f"Pictory denied access with this API key (403): {message}. This request cost nothing. Does the "
            "subscription include the API, and does the job belong to this account?",
            status=status,
        )
    if status == 429:
        return RateLimited(
            f"Pictory refused the request for now (429): {message}. This request cost nothing.",
            status=status,
            retry_after=retry_after,
        )
    if 400 <= status < 500:
        fields = _fields(details.get("fields"))
        named = "; ".join(f"{name}: {text}" if text else name for name, text in fields)
        code = _text(details.get("code"))
        head = " ".join(part for part in (code, message) if part)
        definite = " This request cost nothing. Correct what it names; the same request will be refused again."
        return RequestInvalid(
            f"Pictory refused the request ({status}): {head}{f' [{named}]' if named else ''}."
            f"{definite if status in DEFINITE_4XX else ''}",
            fields=[name for name, _ in fields],
            status=status,
            code=code,
        )
    if status >= 500:
        return Unavailable(
            f"Pictory could not answer ({status}): {message}.", status=status, retry_after=retry_after
        )
    return ProtocolError(f"Pictory answered with an unexpected status {status}: {message}.", status=status)


def _fields(value: Any) -> list[tuple[str, str]]:
    """Read ``fields`` of a 400 in every form seen: a string, strings, objects whose errors are either."""
    found: list[tuple[str, str]] = []
    if isinstance(value, dict):
        value = [
            {"name": name, "errors": errors} if not isinstance(errors, dict) else {"name": name, **errors}
            for name, errors in value.items()
        ]
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            name = _text(_first([item], "name", "field", "path")) or "?"
            errors = _first([item], "errors", "error", "message")
            texts = errors if isinstance(errors, list) else [errors]
            found.append((name, ", ".join(filter(None, map(_said, texts)))))
        elif text := _said(item):
            name, _, rest = text.partition(":")
            found.append((name.strip(), rest.strip()))
    return found


def _items(response: Response) -> tuple[list[dict[str, Any]], str | None]:
    body = check(response)
    items = body.get("items")
    if not isinstance(items, list):
        raise ProtocolError(f"A list came without items: {_excerpt(response)}.", status=response.status)
    return [item for item in items if isinstance(item, dict)], _text(body.get("nextPageKey"))


def _json(response: Response) -> Any:
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        return None


def _excerpt(response: Response) -> str:
    text = without_queries(" ".join(response.body[: EXCERPT * 4].decode("utf-8", "replace").split()))
    return repr(text if len(text) <= EXCERPT else text[:EXCERPT] + "…") if text else "an empty body"


def _first(holders: list[dict[str, Any]], *names: str) -> Any:
    for holder in holders:
        for name in names:
            if holder.get(name) is not None:
                return holder[name]
    return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value).strip() or None


def _said(value: Any) -> str | None:
    """Return a text of Pictory's that is shown: it may repeat a URL that was signed."""
    text = _text(value)
    return text and without_queries(text)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def _pixels(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number > 0 and number == int(number) else None


def _url(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        parts = urlsplit(value)
        return value if parts.scheme in ("http", "https") and parts.hostname else None
    except ValueError:
        return None
