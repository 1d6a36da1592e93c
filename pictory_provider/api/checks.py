# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Check values before they are sent. Each error names the field and says what is wrong with it.

Limits are those of https://docs.pictory.ai/api-reference/ai-studio/generate-image.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from pictory_provider.api.decoding import is_number
from pictory_provider.api.errors import NO_REQUEST, RequestInvalid
from pictory_provider.api.text import counted, type_of

_QUERY = re.compile(r"(\b[a-z0-9+.-]+(?::|%3a)(?:/|%2f){2}[^\s\"'<>?]*?)(?:\?|%3f)[^\s\"'<>]+", re.IGNORECASE)
_UPLOAD = re.compile(r"upload:[^/]+\?sha256=[0-9a-f]{64}")
UPLOAD_HINT = (
    "To let the task upload it to Pictory, set reference_upload=True. Everyone who has the URL of an uploaded "
    "picture can see it, and Pictory keeps it for good."
)
"""How a picture that Pictory cannot read may be used, and what that means."""
PROMPT_MIN = 5
PROMPT_MAX = 5_000
MOST_CANDIDATES = 8
"""Pictures of one request that a task makes."""
"""The shortest and the longest prompt, in characters."""


def check_job_id(job_id: object) -> str:
    """Return the job id without surrounding blanks.

    Its format is not checked: Pictory documents a UUID, and decides.

    :raises RequestInvalid: for a value that is not a string, an empty one, and ``"None"``, which Jinja renders
        for a missing XCom.
    """
    if isinstance(job_id, Sequence) and not isinstance(job_id, (str, bytes)):
        raise RequestInvalid.unsent(
            f"job_id is a list of {len(job_id)}; it takes one jobId",
            "Map the task over the list: PictoryJobSensor.partial(task_id=...).expand(job_id=generate.output).",
            fields=["job_id"],
            money=NO_REQUEST,
        )
    if not isinstance(job_id, str) or job_id.strip() in ("", "None"):
        raise RequestInvalid.unsent(
            f"job_id is missing: got {job_id!r}",
            "Usually the task that submits the job did not run, was skipped, or pushed no XCom: pass "
            "`generate.output` of a GenerateImageOperator, and check that task's state.",
            fields=["job_id"],
            money=NO_REQUEST,
        )
    return job_id.strip()


def check_url(field: str, url: object) -> str:
    """Return an absolute ``http(s)`` URL unchanged.

    :raises RequestInvalid: names the field. The message shows the URL without its query string,
        which may contain a token.
    """
    problem: str | None = None
    if not isinstance(url, str):
        problem = f"is {type_of(url)}, not a string"
    elif url in ("", "None"):
        problem = "is empty; a template renders to that if it finds nothing"
    elif any(character.isspace() or ord(character) < 32 for character in url):
        problem = "contains blanks; write them as %20"
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
        raise RequestInvalid.unsent(
            f"{field} {problem}: got {without_query(url)!r}", "Use an absolute http(s) URL.", fields=[field]
        )
    assert isinstance(url, str)
    return url


def is_object(url: str) -> bool:
    """Return whether a URL names an object in object storage, such as ``s3://bucket/key.png``."""
    scheme, separator, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    return bool(separator and bucket and key) and scheme.lower() not in ("http", "https", "file", "ftp")


def upload_name(name: str, sha256: str) -> str:
    """Return how records name a reference image that is uploaded: the same bytes by one name are one picture.

    :param name: of the file, without its folder.
    :param sha256: of its bytes, in hexadecimal.
    """
    return f"upload:{name}?sha256={sha256}"


def is_upload(url: object) -> bool:
    """Whether this is an :func:`upload_name`."""
    return isinstance(url, str) and _UPLOAD.fullmatch(url) is not None


def check_reference(field: str, url: object) -> str:
    """Return a reference image unchanged: an ``http(s)`` URL, an object in object storage, or an upload's name.

    :raises RequestInvalid: names the field.
    """
    if isinstance(url, str):
        if is_upload(url) or (is_object(url) and not any(ord(character) < 32 for character in url)):
            return url
        if url.startswith("/") or url.lower().startswith("file:"):
            raise RequestInvalid.unsent(
                f"{field} {url!r} is a local file, and Pictory reads only public http(s) URLs",
                UPLOAD_HINT,
                fields=[field],
            )
        if url.strip() and ":" not in url and url != "None":
            raise RequestInvalid.unsent(
                f"{field} {url!r} is neither an absolute URL nor an absolute path",
                f"If it is a local file, give its absolute path, without ~. {UPLOAD_HINT}",
                fields=[field],
            )
    return check_url(field, url)


def without_query(url: object) -> object:
    """Return a URL without query string, fragment and credentials, for logs and messages."""
    if not isinstance(url, str):
        return url
    bare = url.split("?", 1)[0].split("#", 1)[0]
    scheme, separator, rest = bare.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}" if separator else bare


def public_name(url: str) -> str:
    """Return a URL without its secrets: a web URL without its query, an object's URL without its user.

    In an object's name ``?`` and ``#`` are ordinary characters, so they are kept. An upload's name has no secret.
    """
    if is_upload(url):
        return url
    if not is_object(url):
        return str(without_query(url))
    scheme, separator, rest = url.partition("://")
    bucket, slash, key = rest.partition("/")
    return f"{scheme}{separator}{bucket.rpartition('@')[2]}{slash}{key}"


def without_queries(text: str) -> str:
    """Return a text from a reply without the query strings of its URLs, also if they are escaped or cut off."""
    return _QUERY.sub(r"\1?...", text)


def check_prompt(prompt: object) -> None:
    """Check a prompt.

    :raises RequestInvalid: unless it is a string of 5 to 5,000 characters.
    """
    problem: str | None = None
    if prompt is None:
        problem = "is None: the upstream task returned nothing"
    elif not isinstance(prompt, str):
        problem = f"is {type_of(prompt)}, not a string"
    elif prompt.strip() in ("", "None"):
        problem = f"rendered to {prompt!r}: its template found nothing"
    elif len(prompt.strip()) < PROMPT_MIN:
        problem = f"has {counted(len(prompt.strip()), 'character')}"
    elif len(prompt) > PROMPT_MAX:
        problem = f"has {len(prompt):,} characters"
    if problem:
        raise RequestInvalid.unsent(
            f"prompt {problem}; Pictory takes {PROMPT_MIN} to {PROMPT_MAX:,} characters", fields=["prompt"]
        )


def check_listed(
    field: str, value: object, supported: tuple[str, ...], *, allow_unlisted: bool, owner: str = ""
) -> None:
    """Check that a value is one of the supported ones.

    :param allow_unlisted: also accept any other string that is not empty.
    :param owner: what the supported values belong to, such as ``" of model 'x'"``, for the text.
    :raises RequestInvalid: names the field, the value and the supported values.
    """
    if isinstance(value, str) and (value in supported or (allow_unlisted and value not in ("", "None"))):
        return
    raise RequestInvalid.unsent(
        f"{field} {value!r} is not among those{owner} that this release knows: {', '.join(supported) or 'none'}",
        "If it is newer than this release, set allow_unlisted=True: then Pictory decides.",
        fields=[field],
    )


def check_seconds(name: str, value: object) -> float:
    """Return a duration in seconds.

    :param name: of the argument.
    :raises RequestInvalid: for anything but a non-negative number, ``timedelta`` or ``pendulum.Duration``.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if not is_number(value) or value < 0:
        raise RequestInvalid.unsent(
            f"{name} is {value!r}; it takes a number of seconds or a duration", fields=[name]
        )
    return float(value)


def check_count(name: str, value: object) -> int:
    """Return a whole number from 1 on.

    :param name: of the argument.
    :raises RequestInvalid: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestInvalid.unsent(f"{name} is {value!r}; it takes a whole number from 1 on", fields=[name])
    return value


def check_candidates(value: object) -> int:
    """Return how many pictures of one request a task makes.

    :raises RequestInvalid: for anything but a whole number from 1 to :data:`MOST_CANDIDATES`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_CANDIDATES:
        raise RequestInvalid.unsent(
            f"candidates is {value!r}; it takes a whole number from 1 to {MOST_CANDIDATES}",
            "It is not a template." if isinstance(value, str) else "",
            fields=["candidates"],
        )
    return value


def check_header(name: str, value: object) -> str | None:
    """Return the value of an HTTP header (RFC 9110, 5.5); ``None`` for no header.

    :param name: of the argument.
    :raises RequestInvalid: for anything but visible ASCII characters with single blanks or tabs between them.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+([ \t][!-~]+)*", value):
        raise RequestInvalid.unsent(
            f"{name} is {value!r}; it takes the value of an HTTP header, such as 'public, max-age=3600'",
            fields=[name],
        )
    return value


UNKNOWN_SUBMIT_POLICIES = ("fail", "resubmit")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that an argument of a task has one of the supported values.

    :raises RequestInvalid: lists them.
    """
    if value not in choices:
        raise RequestInvalid.unsent(f"{name} is {value!r}; it takes one of {', '.join(choices)}", fields=[name])


CHANGED = "changed"
"""The value of ``overwrite`` that replaces pictures of other requests only."""


def check_overwrite(overwrite: object) -> None:
    """Check the argument ``overwrite`` of a task that generates pictures.

    :raises RequestInvalid: says what is supported.
    """
    if overwrite is not True and overwrite is not False and overwrite != CHANGED:
        raise RequestInvalid.unsent(
            f"overwrite is {overwrite!r}; it takes True, False or {CHANGED!r}", fields=["overwrite"]
        )


def check_switch(name: str, value: object) -> bool:
    """Return the value of an argument that is true or false, also if a template has rendered it to text.

    An empty text is refused, because a template that finds nothing says neither.

    :raises RequestInvalid: says what is supported.
    """
    switch = {"true": True, "false": False}.get(str(value).strip().lower())
    if switch is None:
        raise RequestInvalid.unsent(f"{name} is {value!r}; it takes True or False", fields=[name])
    return switch


def check_policy(on_unknown_submit: object) -> None:
    """Check ``on_unknown_submit``, as :func:`check_choice`."""
    check_choice("on_unknown_submit", on_unknown_submit, UNKNOWN_SUBMIT_POLICIES)
