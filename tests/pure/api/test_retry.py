# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""The decision whether and when a request is sent again."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from pictory_provider.api import responses, retry
from pictory_provider.api.errors import (
    KINDS,
    AuthenticationError,
    CertificateUntrusted,
    EdgeBlocked,
    Fault,
    PictoryError,
    ProtocolError,
    RateLimited,
    ReplyTooLarge,
    RequestInvalid,
    SubmitOutcomeUnknown,
    TransportError,
    Unavailable,
)
from pictory_provider.api.responses import Response
from pictory_provider.api.retry import SendAgain, SubmitOutcome
from pictory_provider.api.timing import TIMING

NOW = 1_800_000_000.0


def error_of(status: int, body: bytes = b'{"message": "x"}') -> PictoryError:
    with pytest.raises(PictoryError) as caught:
        responses.parse_submission(Response(status, {}, body))
    return caught.value


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (200, SubmitOutcome.UNKNOWN),
        (204, SubmitOutcome.UNKNOWN),
        (301, SubmitOutcome.UNKNOWN),
        (302, SubmitOutcome.UNKNOWN),
        (307, SubmitOutcome.UNKNOWN),
        (400, SubmitOutcome.REFUSED),
        (401, SubmitOutcome.REFUSED),
        (402, SubmitOutcome.REFUSED),
        (403, SubmitOutcome.REFUSED),
        (404, SubmitOutcome.REFUSED),
        (405, SubmitOutcome.REFUSED),
        (408, SubmitOutcome.UNKNOWN),
        (409, SubmitOutcome.UNKNOWN),
        (413, SubmitOutcome.REFUSED),
        (422, SubmitOutcome.REFUSED),
        (425, SubmitOutcome.UNKNOWN),
        (429, SubmitOutcome.REFUSED_FOR_NOW),
        (500, SubmitOutcome.UNKNOWN),
        (502, SubmitOutcome.UNKNOWN),
        (503, SubmitOutcome.UNKNOWN),
        (504, SubmitOutcome.UNKNOWN),
        (520, SubmitOutcome.UNKNOWN),
        (524, SubmitOutcome.UNKNOWN),
        (599, SubmitOutcome.UNKNOWN),
    ],
)
def test_every_status_of_a_paid_request_has_its_outcome(status, fate):
    assert retry.classify_submit_error(error_of(status)) is fate


def test_a_page_from_the_firewall_is_a_refusal():
    assert retry.classify_submit_error(error_of(403, b"<html>")) is SubmitOutcome.REFUSED


@pytest.mark.parametrize(
    ("fault", "fate"),
    [
        (Fault.NEVER_SENT, SubmitOutcome.NEVER_SENT),
        (Fault.MAYBE_ACCEPTED, SubmitOutcome.UNKNOWN),
        (Fault.UNREADABLE, SubmitOutcome.UNKNOWN),
    ],
)
def test_every_fault_of_a_paid_request_has_its_outcome(fault, fate):
    assert retry.classify_submit_error(TransportError("x", fault=fault)) is fate


def test_an_unclassified_status_is_never_taken_for_a_refusal():
    definite = {400, 401, 402, 403, 404, 405, 406, 411, 413, 414, 415, 422, 429, 431}
    for status in (*range(100, 400), *range(400, 1000)):
        fate = retry.classify_submit_error(error_of(status))
        assert (fate is SubmitOutcome.UNKNOWN) is (status not in definite), status


def test_an_unclassified_error_is_an_unknown_outcome():
    classified = (
        TransportError,
        CertificateUntrusted,
        RateLimited,
        AuthenticationError,
        EdgeBlocked,
        RequestInvalid,
    )
    for name, cls in KINDS.items():
        if cls not in classified:
            assert retry.classify_submit_error(cls(name)) is SubmitOutcome.UNKNOWN, name
    assert retry.classify_submit_error(RequestInvalid("refused here")) is SubmitOutcome.REFUSED


def test_an_unclassified_status_does_not_claim_to_have_cost_nothing():
    for status in (408, 409, 410, 425, 451, 499, 500, 503, 520):
        assert "cost nothing" not in after_submit(error_of(status)).message


def test_an_unknown_outcome_stays_what_it_is():
    unknown = SubmitOutcomeUnknown.because("the cable was cut")
    assert after_submit(unknown) is unknown


def after_submit(error, *, attempt=1, spent=0.0, chance=0.0):
    return retry.after_submit(error, attempt=attempt, spent=spent, now=NOW, chance=chance)


@pytest.mark.parametrize(
    "error",
    [TransportError("x", fault=Fault.NEVER_SENT), RateLimited("x", status=429)],
)
def test_what_never_left_or_was_refused_for_now_is_sent_again_within_a_minute(error):
    assert after_submit(error) == SendAgain(1.0)
    assert after_submit(error, attempt=4, spent=7.0) == SendAgain(8.0)
    given_up = after_submit(error, attempt=6, spent=59.5)
    assert type(given_up) is (RateLimited if isinstance(error, RateLimited) else Unavailable)
    assert "Nothing was bought, so a retry" in given_up.message


def test_a_refusal_that_outlasts_the_minute_is_rate_limited_and_keeps_its_header():
    given_up = after_submit(RateLimited("x", status=429, retry_after="600"))
    assert type(given_up) is RateLimited
    assert (given_up.status, given_up.retry_after) == (429, "600")


def test_retry_after_is_heeded_and_jittered_upward_only():
    assert after_submit(RateLimited("x", retry_after="20")) == SendAgain(20.0)
    assert after_submit(RateLimited("x", retry_after="20"), chance=1.0) == SendAgain(25.0)
    assert after_submit(RateLimited("x", retry_after="0")) == SendAgain(1.0)


@pytest.mark.parametrize(
    "error",
    [
        TransportError("x", fault=Fault.MAYBE_ACCEPTED),
        TransportError("x", fault=Fault.UNREADABLE),
        Unavailable("x", status=500),
        Unavailable("x", status=503, retry_after="1"),
        ProtocolError("x", status=200),
    ],
)
def test_what_could_have_been_accepted_is_never_sent_again(error):
    verdict = after_submit(error)
    assert isinstance(verdict, SubmitOutcomeUnknown)
    assert "unknown whether Pictory accepted" in verdict.message


@pytest.mark.parametrize("error", [RequestInvalid("x", status=400), AuthenticationError("x"), EdgeBlocked("x")])
def test_a_refusal_is_raised_as_it_is(error):
    assert after_submit(error) is error


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("30", 30.0),
        (" 30 ", 30.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("86400", 86_400.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("Fri, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(value, seconds):
    assert retry.parse_retry_after(value, now=NOW) == seconds


@pytest.mark.parametrize(("status", "seconds"), [(200, None), (302, None), (400, 7.0), (429, 7.0), (503, 7.0)])
def test_only_a_refusal_can_request_a_pause(status, seconds):
    assert retry.requested_pause(Response(status, {"retry-after": "7"}, b""), now=NOW) == seconds
    assert retry.requested_pause(Response(status, {}, b""), now=NOW) is None


def test_backoff_doubles_up_to_a_bound_and_jitters_upward():
    assert [retry.backoff(n, chance=0.0, first=1) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert retry.backoff(100, chance=0.0, first=1) == TIMING.backoff_max
    assert retry.backoff(1, chance=1.0, first=1) == 1.25


def after_read(error, **more):
    return retry.after_read(error, **{"attempt": 1, "spent": 0.0, "now": NOW, "chance": 0.0, **more})


def test_a_reading_request_is_repeated_only_after_transient_errors():
    for error in (Unavailable("x"), RateLimited("x"), TransportError("x"), ProtocolError("x"), EdgeBlocked("x")):
        assert after_read(error) == SendAgain(1.0)
        assert after_read(error, spent=19.5) is error
    for status in (408, 409, 425):
        assert after_read(RequestInvalid("x", status=status)) == SendAgain(1.0)
    for name, cls in KINDS.items():
        if not issubclass(cls, (Unavailable, ProtocolError, EdgeBlocked)) or cls in (
            CertificateUntrusted,
            ReplyTooLarge,
        ):
            error = cls(name)
            assert after_read(error) is error


def test_no_pause_of_our_own_is_longer_than_five_minutes():
    assert retry.backoff(40, chance=0, first=1) == 300
    assert retry.backoff(40, chance=1, first=1) == 375


@pytest.mark.parametrize("error", [TransportError("x", fault=Fault.NEVER_SENT), RateLimited("x", status=429)])
def test_a_submission_is_sent_again_as_long_as_its_minute_holds_the_pause_too(error):
    assert TIMING.resend_budget == 60
    assert after_submit(error, spent=59.0) == SendAgain(1.0)
    assert isinstance(after_submit(error, spent=59.01), Unavailable)


def test_a_reading_request_is_repeated_as_long_as_its_time_holds_the_pause_too():
    error = Unavailable("x")
    assert after_read(error, spent=TIMING.read_budget - 1.0) == SendAgain(1.0)
    assert after_read(error, spent=TIMING.read_budget - 0.99) is error
    assert after_read(error, attempt=3, spent=0.0, chance=1.0) == SendAgain(5.0)


def test_giving_up_says_the_attempts_and_the_time_and_that_a_retry_is_safe():
    given_up = after_submit(TransportError("No route.", fault=Fault.NEVER_SENT), attempt=6, spent=59.6)
    assert given_up.message == (
        "No route. Gave up after 6 attempts in 60 s. Nothing was bought, so a retry of the task is safe."
    )
    assert (type(given_up), given_up.status, given_up.retry_after) == (Unavailable, None, None)


def test_an_unknown_outcome_says_what_happened():
    verdict = after_submit(Unavailable("Pictory could not answer (500).", status=500))
    assert verdict.why == "Pictory could not answer (500)"


@pytest.mark.parametrize(
    ("asked", "failures", "chance", "first", "seconds"),
    [
        (None, 1, 0.0, 15.0, 15.0),
        (None, 3, 0.0, 15.0, 60.0),
        (None, 3, 1.0, 15.0, 75.0),
        ("100", 3, 0.0, 15.0, 100.0),
        ("100", 3, 1.0, 15.0, 125.0),
        ("10", 3, 0.0, 15.0, 15.0),
        ("14", 3, 1.0, 15.0, 17.5),
        ("soon", 3, 0.0, 15.0, 60.0),
    ],
)
def test_a_pause_is_what_was_asked_for_or_doubles_and_is_never_less_than_the_first(
    asked, failures, chance, first, seconds
):
    error = Unavailable("x", retry_after=asked)
    assert retry.pause_after(error, failures=failures, now=NOW, chance=chance, first=first) == seconds


def test_an_error_that_knows_no_retry_after_doubles_the_pause():
    for error in (EdgeBlocked("x"), ProtocolError("x")):
        assert retry.pause_after(error, failures=2, now=NOW, chance=0.0, first=1.0) == 2


def test_a_first_pause_that_is_longer_than_the_bound_is_kept():
    assert retry.backoff(1, chance=0.0, first=400) == 400
    assert retry.backoff(9, chance=0.0, first=400) == 400


@pytest.mark.parametrize("failures", [31, 32, 1_000_000])
def test_however_often_it_has_failed_the_pause_is_a_number(failures):
    assert retry.backoff(failures, chance=0.0, first=1e-9) == pytest.approx(min(300, 2**30 * 1e-9))


def test_the_times_of_repetitions_are_those_that_the_docs_give():
    assert (TIMING.backoff_first, TIMING.backoff_max, TIMING.read_budget) == (1, 300, 20)


def test_a_certificate_that_cannot_be_verified_is_tried_once_and_bought_nothing():
    error = CertificateUntrusted("x")
    assert retry.classify_submit_error(error) is SubmitOutcome.NEVER_SENT
    assert after_submit(error) is error
    assert after_read(error) is error
    assert not retry.is_transient(error)


def test_a_certificate_that_fails_after_the_body_has_left_is_an_unknown_outcome_all_the_same():
    for fault in (Fault.MAYBE_ACCEPTED, Fault.UNREADABLE):
        assert retry.classify_submit_error(CertificateUntrusted("x", fault=fault)) is SubmitOutcome.UNKNOWN
        assert isinstance(after_submit(CertificateUntrusted("x", fault=fault)), SubmitOutcomeUnknown)


def test_a_reply_that_is_too_large_is_read_once_and_leaves_a_purchase_unknown():
    error = ReplyTooLarge("x")
    assert retry.classify_submit_error(error) is SubmitOutcome.UNKNOWN
    assert isinstance(after_submit(error), SubmitOutcomeUnknown)
    assert after_read(error) is error
    assert retry.is_transient(error), "the next look at a job may be answered otherwise"
