# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Sign the URL of a private reference image, so that Pictory can read it.

Pictory reads only public ``http(s)`` URLs (https://docs.pictory.ai/api-reference/ai-studio/generate-image), and a
catalogue's pictures are often private. So an object's URL is signed right before the paid request: for an hour, it
allows anyone who has it to read this one object. It is sent to Pictory only.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pictory_provider.api.checks import is_object
from pictory_provider.api.errors import PictoryError, RequestInvalid, Unavailable
from pictory_provider.storage.paths import object_storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.api.models import ImageRequest

LIFETIME = 3600
"""Seconds that a signed URL is valid: a job may wait in Pictory's queue before the image is read."""


def readable(request: ImageRequest) -> ImageRequest:
    """Return a request whose reference image Pictory can read.

    :raises RequestInvalid: if the object does not exist, or its storage cannot sign.
    :raises Unavailable: if the storage does not answer.
    """
    url = request.reference_image_url
    return replace(request, reference_image_url=_signed(url)) if url and is_object(url) else request


@contextmanager
def unsigned(sent: ImageRequest, original: ImageRequest) -> Iterator[None]:
    """Replace the signed URL in the errors of the block by the original one."""
    try:
        yield
    except PictoryError as error:
        signed, plain = sent.reference_image_url, original.reference_image_url
        if signed and plain and signed != plain:
            for secret, shown in ((signed, plain), (signed.partition("?")[2], "...")):
                error.message = error.message.replace(secret, shown)
            error.args = (error.message, *error.args[1:])
        raise


def _signed(url: str) -> str:
    field = "reference_image_url"
    image = object_storage(field, url)
    try:
        if not image.fs.exists(image.path):
            raise RequestInvalid.unsent(f"{field} {url!r} does not exist", fields=[field])
        with _quiet():
            return str(image.fs.sign(image.path, expiration=LIFETIME))
    except RequestInvalid:
        raise
    except NotImplementedError:
        raise RequestInvalid.unsent(
            f"{field} {url!r} cannot be signed by its storage, and Pictory reads only public http(s) URLs",
            "Copy it to a public URL, or to a storage that signs URLs (S3, GCS, Azure).",
            fields=[field],
        ) from None
    except Exception as error:  # each client of an object storage has its own error classes
        raise Unavailable.unsent(
            f"{field} {url!r} could not be signed: {type(error).__name__}: {error}",
            "Check the connection of that storage, and its permission to read.",
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep signatures out of botocore's DEBUG logs."""
    log = logging.getLogger("botocore.auth")
    level = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
