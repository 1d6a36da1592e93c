# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Parse replies: status, headers and body in, a value or an error out.

Pictory's pages leave several formats open. Every variant that its pages, its script and its older examples show
is accepted; any other reply is an error, never a silent success.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from pictory_provider.api import errors
from pictory_provider.api.checks import check_url, without_queries, without_query
from pictory_provider.api.decoding import is_number, parse_json
from pictory_provider.api.models import GeneratedImage, Job, Quota
from pictory_provider.api.retry import DEFINITE_4XX

if TYPE_CHECKING:
    from collections.abc import Mapping

EXCERPT = 200
"""The number of characters of an unexpected reply that an error text shows."""


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP reply as a value.

    :param headers: names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class UploadUrls(NamedTuple):
    """Where to upload a file, and where everyone can read it afterwards.

    :param signed_url: a key to the upload; it is valid for 24 hours.
    :param url: public and permanent.
    """

    signed_url: str
    url: str


def parse_submission(response: Response) -> str:
    """Return the jobId of an accepted request.

    :raises ProtocolError: for a success without a readable jobId. The job may exist.
    :raises PictoryError: for every other status, as in :func:`check`.
    """
    body = check(response)
    data = _mapping(body.get("data"))
    for holder in (data, body):
        for name in ("jobId", "job_id"):
            value = holder.get(name)
            if isinstance(value, str) and value.strip() not in ("", "None"):
                return value.strip()
    raise errors.ProtocolError(
        f"Pictory answered {response.status} without a jobId: {_excerpt(response)}.", status=response.status
    )


def parse_job(response: Response, job_id: str) -> Job:
    """Return a job, whether it is running, completed, failed or cleaned.

    A failed job comes with HTTP 200; the caller checks :attr:`Job.state`.

    :raises JobNotFound: for 404, and for ``JOB_NOT_FOUND`` in any envelope with any status.
    :raises ProtocolError: for a reply that cannot be read, or that is about another job.
    """
    body = _json(response)
    holders = [_mapping(body.get("data")), _mapping(body.get("error")), body] if isinstance(body, dict) else []
    code = _text(_first(holders, "error_code", "errorCode"))
    message = _safe_text(_first(holders, "error_message", "errorMessage"))
    if response.status == 404 or "JOB_NOT_FOUND" in (code, message):
        raise errors.JobNotFound(
            f"Pictory does not know job {job_id!r} (HTTP {response.status}). This request cost nothing. "
            "Check the id, and that the connection's key belongs to the account that submitted the job.",
            job=Job(job_id=job_id, error_code=code, error_message=message),
        )
    body = check(response)
    named = _text(_first(holders, "job_id", "jobId"))
    if named is not None and named.lower() != job_id.lower():
        raise errors.ProtocolError(f"Pictory answered a request for job {job_id} with job {named}.", status=200)
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


def parse_upload_urls(response: Response, base_url: str) -> UploadUrls:
    """Return the URLs of a file that is to be uploaded. No error shows them.

    :param base_url: of the API.
    :raises ProtocolError: if one is missing, or the file could not be sent or read over it safely.
    """
    data = _mapping(check(response).get("data"))
    urls = {name: data.get(name) for name in ("signedUrl", "url")}
    for name, url in urls.items():
        if not is_safe_url(url, base_url):
            raise errors.ProtocolError(
                f"Pictory answered a request for an upload without a usable {name}: it has to be an https URL.",
                status=response.status,
            )
    return UploadUrls(str(urls["signedUrl"]), str(urls["url"]))


def is_safe_url(url: object, base_url: str) -> bool:
    """Whether a file may be sent to a URL and read from it: over https, or on the loopback if the API is there.

    :param base_url: of the API.
    """
    try:
        parts = urlsplit(check_url("url", url))
        return parts.scheme == "https" or (
            _is_loopback(parts.hostname) and _is_loopback(urlsplit(base_url).hostname)
        )
    except errors.RequestInvalid:
        return False


def check_upload(response: Response, url: str) -> None:
    """Check the status of an upload.

    :param url: the signed one. The error shows its host only, and of the reply its error code only: it may quote
        the signature.
    :raises RequestInvalid: if the host refuses the file.
    :raises Unavailable: for every other status but a success; another signed URL may succeed.
    """
    status = response.status
    if 200 <= status < 300:
        return
    found = re.search(rb"<Code>(\w{1,60})</Code>", response.body)
    code = f" {found[1].decode()}" if found else ""
    text = f"{urlsplit(url).hostname} refused the upload ({status}{code})."
    if status in (400, 411, 413, 415):
        raise errors.RequestInvalid(text, status=status)
    raise errors.Unavailable(text, status=status, retry_after=response.headers.get("retry-after"))


def parse_quota(response: Response) -> Quota:
    """Return the subscription's AI credits.

    :raises ProtocolError: if ``aiCredits`` is missing or its values are not numbers.
    """
    body = check(response)
    credits = _mapping(body.get("aiCredits"))
    used, limit = _number(credits.get("used")), _number(credits.get("limit"))
    if used is None or limit is None:
        raise errors.ProtocolError(f"Pictory sent a quota without AI credits: {_excerpt(response)}.", status=200)
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
    """Return one page of jobs as Pictory sends them, and the key of the next page."""
    return _items(response)


def parse_credit_usage(response: Response) -> list[dict[str, Any]]:
    """Return the ledger's entries as Pictory sends them, newest first.

    :raises ProtocolError: for an entry that is not an object: none may be missing from the spending.
    """
    body: list[Any] = check(response, list)
    if not all(isinstance(entry, dict) for entry in body):
        raise errors.ProtocolError(
            f"The ledger has an entry that is not an object: {_excerpt(response)}.", status=200
        )
    return body


def parse_cleaned(response: Response) -> None:
    """Check that a clean-up was accepted.

    :raises ProtocolError: if the reply does not confirm it.
    """
    if check(response).get("success") is not True:
        raise errors.ProtocolError(
            f"The clean-up was not confirmed: {_excerpt(response)}.", status=response.status
        )


def check_picture(response: Response, url: str) -> None:
    """Check the status of a picture's download.

    :raises Unavailable: for 429 and 5xx; the same download may succeed later.
    :raises ImageInvalid: for every other status but 200.
    """
    status, where = response.status, without_query(url)
    if status >= 500 or status == 429:
        raise errors.Unavailable(
            f"The picture's host could not answer ({status}) for {where}.",
            status=status,
            retry_after=response.headers.get("retry-after"),
        )
    if status != 200:
        raise errors.ImageInvalid(
            f"The picture's host answered {status} for {where}. Result URLs expire. If the job is known, a retry "
            "gets a new URL from Pictory; for a download, pass job_id instead of url."
        )


def check(response: Response, expected: type = dict) -> Any:
    """Return the JSON of a success, or raise the error for the status.

    ======== =======================================================================
    200-299  the JSON; ``errors.ProtocolError`` if it is not JSON of the expected type
    401      ``errors.AuthenticationError``
    403      ``errors.AuthenticationError`` with JSON, ``errors.EdgeBlocked`` with a page
    429      ``errors.RateLimited``
    4xx      ``errors.RequestInvalid``
    5xx      ``errors.Unavailable``, with its ``Retry-After``
    others   ``errors.ProtocolError``
    ======== =======================================================================
    """
    body = _json(response)
    status = response.status
    if 200 <= status < 300:
        if not isinstance(body, expected):
            raise errors.ProtocolError(
                f"Pictory answered {status} with a body that is not the documented JSON: {_excerpt(response)}.",
                status=status,
            )
        return body
    raise _refusal(response, body)


def _refusal(response: Response, body: Any) -> errors.PictoryError:
    status = response.status
    details = body if isinstance(body, dict) else {}
    message = (_safe_text(details.get("message")) or _excerpt(response)).rstrip(".")
    retry_after = response.headers.get("retry-after")
    if status == 401:
        return errors.AuthenticationError(
            "Pictory refused the API key (401). This request cost nothing. Was the key regenerated? Copy it from "
            "https://app.pictory.ai/api-access into the connection's password, without `Bearer`.",
            status=status,
        )
    if status == 403 and body is None:
        return errors.EdgeBlocked(
            "The firewall in front of Pictory blocked this client (403 with a page instead of JSON). The "
            "API key is not the cause, and this request cost nothing. Set another `user_agent` in the "
            "connection's extra, or ask Pictory to allow this machine's address. The page says: "
            f"{_excerpt(response)}."
        )
    if status == 403:
        return errors.AuthenticationError(
            f"Pictory denied access with this API key (403): {message}. This request cost nothing. Does the "
            "subscription include the API, and does the job belong to this account?",
            status=status,
        )
    if status == 429:
        text = f"Pictory refused the request for now (429): {message}. This request cost nothing."
        return errors.RateLimited(text, status=status, retry_after=retry_after)
    if 400 <= status < 500:
        fields = _fields(details.get("fields"))
        named = "; ".join(f"{name}: {text}" if text else name for name, text in fields)
        code = _text(details.get("code"))
        head = " ".join(part for part in (code, message) if part)
        if errors.lacks_credits(status, code):
            text = (
                f"The account has too few AI credits left for this picture ({status}): {head}. This request cost "
                f"nothing. {errors.TOP_UP}"
            )
        else:
            text = f"Pictory refused the request ({status}): {head}{f' [{named}]' if named else ''}."
            if status in DEFINITE_4XX:
                text += " This request cost nothing. Correct what it names: Pictory would refuse the same again."
        return errors.RequestInvalid(text, fields=[name for name, _ in fields], status=status, code=code)
    if status >= 500:
        text = f"Pictory could not answer ({status}): {message}."
        return errors.Unavailable(text, status=status, retry_after=retry_after)
    return errors.ProtocolError(f"Pictory answered with an unexpected status {status}: {message}.", status=status)


def _fields(value: Any) -> list[tuple[str, str]]:
    """Parse ``fields`` of a 400 in every known format: a string, strings, or objects whose errors are either."""
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
            found.append((name, ", ".join(filter(None, map(_safe_text, texts)))))
        elif text := _safe_text(item):
            name, _, rest = text.partition(":")
            found.append((name.strip(), rest.strip()))
    return found


def _items(response: Response) -> tuple[list[dict[str, Any]], str | None]:
    body = check(response)
    items = body.get("items")
    if not isinstance(items, list):
        raise errors.ProtocolError(
            f"Pictory sent a list without items: {_excerpt(response)}.", status=response.status
        )
    return [item for item in items if isinstance(item, dict)], _text(body.get("nextPageKey"))


def _json(response: Response) -> Any:
    try:
        return parse_json(response.body)
    except ValueError:
        return None


def _excerpt(response: Response) -> str:
    text = without_queries(" ".join(response.body[: EXCERPT * 4].decode("utf-8", "replace").split()))
    return repr(text if len(text) <= EXCERPT else text[:EXCERPT] + "…") if text else "an empty body"


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


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


def _safe_text(value: Any) -> str | None:
    """Return a text from a reply without query strings: it may repeat a signed URL."""
    text = _text(value)
    return text and without_queries(text)


def _number(value: Any) -> float | None:
    return value if is_number(value) else None


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
