# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""An error keeps its sentence about the money apart, so that it can be replaced."""

from __future__ import annotations

import pytest

from pictory_provider.api.errors import NOTHING_SPENT, RequestInvalid, StorageFailed, TransportError, Unavailable


def test_an_unsent_error_says_what_happened_the_money_and_what_to_do():
    error = RequestInvalid.unsent("prompt has 4 characters", "Write more.", fields=["prompt"])
    assert error.message == f"prompt has 4 characters. {NOTHING_SPENT} Write more."
    assert (str(error), error.args) == (error.message, (error.message,))
    assert error.fields == ("prompt",)
    assert RequestInvalid.unsent("It is wrong").message == f"It is wrong. {NOTHING_SPENT}"


@pytest.mark.parametrize("cls", [RequestInvalid, StorageFailed, Unavailable])
def test_the_sentence_about_the_money_can_be_another_or_none(cls):
    error = cls.unsent("It is wrong", "Correct it.")
    other = error.with_money("What is paid for is saved.")
    assert str(other) == other.message == "It is wrong. What is paid for is saved. Correct it."
    assert other.with_money("").message == "It is wrong. Correct it."
    assert type(other) is cls
    assert error.message == f"It is wrong. {NOTHING_SPENT} Correct it."


def test_an_error_without_parts_keeps_its_text_and_gets_the_sentence():
    error = RequestInvalid("Pictory refused it. Correct it.", status=400, code="X")
    other = error.with_money("What is paid for is saved.")
    assert other.message == "Pictory refused it. Correct it. What is paid for is saved."
    assert (other.status, other.code) == (400, "X")
    assert error.with_money("").message == error.message


def test_with_message_changes_only_the_text():
    error = TransportError("no reply").with_message("The picture could not be downloaded: no reply")
    assert (str(error), error.message) == ("The picture could not be downloaded: no reply",) * 2
    assert error.fault is TransportError("x").fault
