# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Is this value fit to be sent? Each check says what is wrong before anything is sent, and names the field.

Limits are those of https://docs.pictory.ai/api-reference/ai-studio/generate-image.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from pictory_provider.api.errors import RequestInvalid

_QUERY = re.compile(r"(\b[a-z0-9+.-]+(?::|%3a)(?:/|%2f){2}[^\s\"'<>?]*?)(?:\?|%3f)[^\s\"'<>]+", re.IGNORECASE)
PROMPT_MIN = 5
PROMPT_MAX = 5_000
"""A prompt's length in characters, both ends included."""


def check_job_id(job_id: object) -> str:
    """Return the job id, or say why it is none.

    Its form is not checked: Pictory documents a UUID, and decides.

    :raises RequestInvalid: for anything but a string, for an empty one, and for ``"None"``, which is
        what Jinja makes of a missing XCom.
    """
    if isinstance(job_id, Sequence) and not isinstance(job_id, (str, bytes)):
        raise RequestInvalid(
            f"job_id is a list of {len(job_id)}, and takes one jobId. No request was made. Map the task over the "
            "list: PictoryJobSensor.partial(task_id=...).expand(job_id=generate.output).",
            fields=["job_id"],
        )
    if not isinstance(job_id, str) or job_id.strip() in ("", "None"):
        raise RequestInvalid(
            f"job_id is missing: got {job_id!r}. No request was made. Usually the task that submits the "
            "job did not run, was skipped, or left no XCom: pass `generate.output` of a "
            "GenerateImageOperator, and look at that task's state.",
            fields=["job_id"],
        )
    return job_id.strip()


def check_url(field: str, url: object) -> str:
    """Return an absolute ``http(s)`` URL, or say what is wrong with it.

    :raises RequestInvalid: names the field. The message shows the URL without its query string,
        which may hold a token.
    """
    problem: str | None = None
    if not isinstance(url, str):
        problem = f"is {type(url).__name__}, not a string"
    elif url in ("", "None"):
        problem = "is empty; a template that finds nothing renders to that"
    elif any(character.isspace() or ord(character) < 32 for character in url):
        problem = "has blanks in it; write them as %20"
    else:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            problem = f"is not a URL ({error})"
        else:
            if parts.scheme.lower() not in ("http", "https"):
                problem = "does not begin with http:// or https://"
            elif not host:
                problem = "has no host"
    if problem:
        raise RequestInvalid(
            f"{field} {problem}: got {without_query(url)!r}. "
            "Nothing was sent and nothing was spent. Use an absolute http(s) URL.",
            fields=[field],
        )
    assert isinstance(url, str)
    return url


def is_object(url: str) -> bool:
    """Whether this names an object of a storage, such as ``s3://bucket/key.png``, and no URL of the web."""
    scheme, separator, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    return bool(separator and bucket and key) and scheme.lower() not in ("http", "https", "file", "ftp")


def check_reference(field: str, url: object) -> str:
    """Return the URL of a reference image: of the web, or of an object that can be signed.

    :raises RequestInvalid: names the field.
    """
    if isinstance(url, str) and is_object(url) and not any(ord(character) < 32 for character in url):
        return url
    return check_url(field, url)


def without_query(url: object) -> object:
    """Return a URL fit for a log line: no query string, no fragment, no credentials."""
    if not isinstance(url, str):
        return url
    bare = url.split("?", 1)[0].split("#", 1)[0]
    scheme, separator, rest = bare.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}" if separator else bare


def public_name(url: str) -> str:
    """Return what names a picture and is no secret: a URL without its query, an object without its user.

    In the name of an object ``?`` and ``#`` are part of it.
    """
    if not is_object(url):
        return str(without_query(url))
    scheme, separator, rest = url.partition("://")
    bucket, slash, key = rest.partition("/")
    return f"{scheme}{separator}{bucket.rpartition('@')[2]}{slash}{key}"


def without_queries(text: str) -> str:
    """Return a text of the other side's in which no URL has its query any more, however it is escaped or cut."""
    return _QUERY.sub(r"\1?...", text)


def check_prompt(prompt: object) -> None:
    """Say what is wrong with a prompt.

    :raises RequestInvalid: for anything but a string of 5 to 5,000 characters.
    """
    problem: str | None = None
    if prompt is None:
        problem = "is None: what it was given is empty. Did the task that makes it return nothing"
    elif not isinstance(prompt, str):
        problem = f"is {type(prompt).__name__}, not a string"
    elif prompt.strip() in ("", "None"):
        problem = f"rendered to {prompt!r}: its template found nothing"
    elif len(prompt.strip()) < PROMPT_MIN:
        problem = f"has {len(prompt.strip())} characters"
    elif len(prompt) > PROMPT_MAX:
        problem = f"has {len(prompt):,} characters"
    if problem:
        raise RequestInvalid(
            f"prompt {problem}; Pictory takes {PROMPT_MIN} to {PROMPT_MAX:,} characters. "
            "Nothing was sent and nothing was spent.",
            fields=["prompt"],
        )


def check_listed(
    field: str, value: object, supported: tuple[str, ...], *, allow_unlisted: bool, of: str = ""
) -> None:
    """Say what is supported, where a value is not among it.

    :param allow_unlisted: let any other string pass, but an empty one.
    :param of: what the supported values belong to, for the text.
    :raises RequestInvalid: names the field, the value and what is supported.
    """
    if isinstance(value, str) and value in supported:
        return
    if isinstance(value, str) and value not in ("", "None") and allow_unlisted:
        return
    raise RequestInvalid(
        f"{field} {value!r} is not among those{of} that this release knows: "
        f"{', '.join(supported) or 'none'}. Nothing was sent and nothing was spent. "
        "Is it newer than this release? allow_unlisted=True lets it pass, and Pictory decides.",
        fields=[field],
    )
