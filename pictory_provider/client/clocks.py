# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Measure by how much Pictory's clock and this machine's differ, from the headers of a reply.

The header ``Date`` says when a reply was made (RFC 9110, 6.6.1), to the second. If the clocks agree, that is
between the start of the request and the arrival of the reply. A reply from a cache has an age (RFC 9111, 5.1),
and proves nothing.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def skew_of(headers: Mapping[str, str], *, sent: float, received: float) -> float | None:
    """Return the seconds by which Pictory's clock is at least ahead of this machine's; below 0 if it is behind.

    :param headers: of a reply, names in lower case.
    :param sent: epoch seconds of this machine, before the request.
    :param received: epoch seconds of this machine when the reply arrived.
    :return: 0 for clocks that may agree; ``None`` if the reply does not show it.
    """
    if headers.get("age", "0").strip() != "0":
        return None
    try:
        at = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if at > received:
        return at - received
    return min(0.0, at + 1 - sent)
