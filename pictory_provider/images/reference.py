# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Let Pictory read a reference image that is private.

Pictory reads public ``http(s)`` URLs alone (https://docs.pictory.ai/api-reference/ai-studio/generate-image), and
pictures of a catalogue are often private. So an object of a storage is signed right before the paid request: for
an hour whoever has that URL may read this one object. It goes to Pictory, and nowhere else.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pictory_provider.api.checks import is_object
from pictory_provider.api.errors import PictoryError, RequestInvalid, Unavailable
from pictory_provider.images.paths import object_storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pictory_provider.api.models import ImageRequest

LIFETIME = 3600
"""Seconds that a signed URL lives: a job may wait in Pictory's queue before it is read."""
_NOTHING = "Nothing was sent and nothing was spent."


def readable(request: ImageRequest) -> ImageRequest:
    """Return a request whose reference image Pictory can read.

    :raises RequestInvalid: where the object is not there, or its storage cannot sign.
    :raises Unavailable: where the storage does not answer.
    """
    url = request.reference_image_url
    return replace(request, reference_image_url=_signed(url)) if url and is_object(url) else request


@contextmanager
def unsigned(sent: ImageRequest, asked: ImageRequest) -> Iterator[None]:
    """Keep a signed URL out of the errors of the block."""
    try:
        yield
    except PictoryError as error:
        signed, plain = sent.reference_image_url, asked.reference_image_url
        if signed and plain and signed != plain:
            for secret, told in ((signed, plain), (signed.partition("?")[2], "...")):
                error.message = error.message.replace(secret, told)
            error.args = (error.message, *error.args[1:])
        raise


def _signed(url: str) -> str:
    image = object_storage("reference_image_url", url)
    try:
        if not image.fs.exists(image.path):
            raise RequestInvalid(
                f"reference_image_url {url!r} does not exist. {_NOTHING}", fields=["reference_image_url"]
            )
        with _quiet():
            signed = image.fs.sign(image.path, expiration=LIFETIME)
    except RequestInvalid:
        raise
    except NotImplementedError:
        raise RequestInvalid(
            f"reference_image_url {url!r} cannot be signed by its storage, and Pictory reads public http(s) URLs "
            f"alone. {_NOTHING} Copy it to where it can be read, or to a storage that signs (S3, GCS, Azure).",
            fields=["reference_image_url"],
        ) from None
    except Exception as error:  # the clients of object storages have errors of their own kinds
        raise Unavailable(
            f"reference_image_url {url!r} could not be signed: {type(error).__name__}: {error}. {_NOTHING} Check "
            "the connection of that storage, and what it may read."
        ) from None
    return str(signed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep a signature out of what botocore logs at DEBUG."""
    log = logging.getLogger("botocore.auth")
    level = log.level
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
