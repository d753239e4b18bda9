"""The table of failures: what was executed, what may be tried again, what the caller hears."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.upstreams.verdict import UNFIT, CallFailed, Executed, Failure, Verdict, classify

NO, UNKNOWN, YES = Executed.NO, Executed.UNKNOWN, Executed.YES
POLICIES = {
    *("content_policy", "content_filter", "image_safety"),  # apiany's documentation
    *("moderation_blocked", "content_policy_violation", "safety_violation"),  # OpenAI's API
    "sensitive_words_detected",  # relays of Anyfast's kind
}
NOT_TAKEN = {301, 302, 307, 308, 406, 407, 410, 411, 412, 414, 416, 417, 421, 425, 426, 428, 431, 451, 501, 505, 511}
REFUSED = {400, 401, 402, 403, 405, 413, 415, 422}
LISTED = NOT_TAKEN | REFUSED | {404, 429, 500, 502, 503, 521, 522, 523}


def judge(phase: Any, status: int | None = None, *, unbilled: bool = True, **facts: Any) -> Verdict:
    return classify(Failure(phase, status=status, **facts), error_is_unbilled=unbilled)


def outline(verdict: Verdict) -> tuple[Any, ...]:
    """executed, again, elsewhere, the public error, Retry-After, x-should-retry."""
    error = verdict.error
    return verdict.executed, verdict.again, verdict.elsewhere, type(error), error.retry_after, error.should_retry


SPOKE = {"spoke": True, "message": "boom"}


@pytest.mark.parametrize(
    ("phase", "status", "facts", "kind", "expected"),
    [
        # Never reached the vendor: the same target once more, then another.
        ("connect", None, {}, "unreachable", (NO, True, True, errors.UpstreamUnavailable, 5, None)),
        # Reached it, but not whole: another target, never the same.
        ("write", None, {}, "unsent", (NO, False, True, errors.UpstreamUnavailable, 5, None)),
        ("prepare", None, {}, "unsent", (NO, False, True, errors.UpstreamUnavailable, 5, None)),
        # What it cannot take, another may; what nobody can, nobody is asked.
        (
            "prepare",
            None,
            {"code": UNFIT, "param": "mask"},
            "unfit",
            (NO, False, True, errors.UnsupportedValue, None, None),
        ),
        ("prepare", None, {"param": "mask"}, "refused", (NO, False, False, errors.InvalidValue, None, None)),
        # Sent whole, answer lost: nobody may send it again.
        ("read", None, {}, "unknown", (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False)),
        ("read", 200, {}, "unknown", (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False)),
        ("status", 429, {}, "rate_limited", (NO, True, True, errors.RateLimited, 5, None)),
        ("status", 429, {"retry_after": 7.4}, "rate_limited", (NO, True, True, errors.RateLimited, 7, None)),
        ("status", 429, {"retry_after": 0.0}, "rate_limited", (NO, True, True, errors.RateLimited, 1, None)),
        ("status", 429, {"retry_after": 900}, "rate_limited", (NO, True, True, errors.RateLimited, 60, None)),
        ("status", 401, SPOKE, "credential", (NO, False, True, errors.UpstreamUnavailable, 60, None)),
        ("status", 402, SPOKE, "credential", (NO, False, True, errors.UpstreamUnavailable, 60, None)),
        ("status", 403, SPOKE, "credential", (NO, False, True, errors.UpstreamUnavailable, 60, None)),
        ("status", 404, SPOKE, "missing", (NO, False, True, errors.ModelNotFound, None, None)),
        ("status", 400, SPOKE, "refused", (NO, False, False, errors.InvalidValue, None, None)),
        ("status", 405, SPOKE, "refused", (NO, False, False, errors.InvalidValue, None, None)),
        ("status", 413, {}, "refused", (NO, False, False, errors.InvalidValue, None, None)),
        ("status", 415, SPOKE, "refused", (NO, False, False, errors.InvalidValue, None, None)),
        ("status", 422, SPOKE, "refused", (NO, False, False, errors.InvalidValue, None, None)),
        ("status", 503, {"retry_after": 9}, "overloaded", (NO, True, True, errors.UpstreamUnavailable, 9, None)),
        ("status", 503, {"retry_after": 0}, "overloaded", (NO, True, True, errors.UpstreamUnavailable, 1, None)),
        ("status", 503, {"retry_after": 999}, "overloaded", (NO, True, True, errors.UpstreamUnavailable, 120, None)),
        ("status", 521, {}, "overloaded", (NO, True, True, errors.UpstreamUnavailable, 5, None)),
        ("status", 522, {}, "overloaded", (NO, True, True, errors.UpstreamUnavailable, 5, None)),
        ("status", 523, {}, "overloaded", (NO, True, True, errors.UpstreamUnavailable, 5, None)),
        ("status", 500, SPOKE, "upstream_error", (NO, False, True, errors.UpstreamError, None, None)),
        ("status", 502, SPOKE, "upstream_error", (NO, False, True, errors.UpstreamError, None, None)),
        ("status", 503, SPOKE, "upstream_error", (NO, False, True, errors.UpstreamError, None, None)),
        # A proxy spoke, not the vendor.
        ("status", 500, {}, "unknown", (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False)),
        ("status", 502, {}, "unknown", (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False)),
        ("status", 503, {}, "unknown", (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False)),
        ("status", 504, SPOKE, "unknown", (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False)),
        ("status", 520, {}, "unknown", (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False)),
        ("status", 524, {}, "unknown", (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False)),
        ("status", 408, SPOKE, "unknown", (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False)),
        ("status", None, {}, "unknown", (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False)),
        ("body", 200, {}, "bad_response", (YES, False, False, errors.UpstreamBadResponse, None, False)),
        ("body", 200, SPOKE, "bad_response", (YES, False, False, errors.UpstreamBadResponse, None, False)),
        ("collect", 404, {}, "not_collected", (YES, False, False, errors.UpstreamFailed, None, False)),
        ("task", None, {"code": "failed"}, "task_failed", (NO, False, True, errors.UpstreamFailed, None, False)),
        ("task", None, {}, "task_failed", (NO, False, True, errors.UpstreamFailed, None, False)),
        (
            *("task", None, {"code": "expired"}, "unknown"),
            (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False),
        ),
    ],
)
def test_each_row_of_the_table(
    phase: Any, status: int | None, facts: dict[str, Any], kind: str, expected: tuple[Any, ...]
) -> None:
    """Each outcome of a paid call has one verdict."""
    verdict = judge(phase, status, **facts)
    assert (verdict.kind, outline(verdict)) == (kind, expected)


@pytest.mark.parametrize("spoke", [True, False])
def test_unlisted_status_is_unknown(spoke: bool) -> None:
    """A status that is not in the table proves nothing, so the call is never sent again."""
    for status in sorted(set(range(100, 600)) - LISTED):
        verdict = judge("status", status, spoke=spoke, retry_after=3)
        assert verdict.kind == "unknown", status
        assert (verdict.executed, verdict.again, verdict.elsewhere) == (UNKNOWN, False, False), status


@pytest.mark.parametrize("status", sorted(NOT_TAKEN))
@pytest.mark.parametrize("facts", [{}, SPOKE, {"is_page": True}], ids=["empty", "vendor", "page"])
def test_answer_before_any_work_proves_nothing_was_made(status: int, facts: dict[str, Any]) -> None:
    """A redirect, or a demand on the form of a request, comes before the work: nothing is billed, another may serve."""
    verdict = judge("status", status, unbilled=False, **facts)
    assert (verdict.kind, verdict.credential_down, verdict.drift) == ("not_taken", False, False)
    assert outline(verdict) == (NO, False, True, errors.UpstreamUnavailable, None, None)
    assert str(status) in verdict.error.message


@pytest.mark.parametrize("status", sorted(REFUSED))
def test_page_is_a_proxys(status: int) -> None:
    """A page of HTML says nothing about our credential or about the request: a proxy stopped it before the vendor."""
    verdict = judge("status", status, unbilled=False, is_page=True, message="a page of HTML: Attention Required!")
    kind = errors.RequestTooLarge if status == 413 else errors.UpstreamUnavailable
    assert (verdict.kind, verdict.credential_down, verdict.drift) == ("not_taken", False, False)
    assert outline(verdict) == (NO, False, True, kind, None, None)
    assert "proxy" in verdict.error.message
    assert status == 413 or "Attention Required!" in verdict.error.message


@pytest.mark.parametrize("status", [303, 408, 409, 424, 499, 504, 520])
def test_answer_after_the_work_began_proves_nothing(status: int) -> None:
    """303 comes once the work is done, and the others may come after it began."""
    assert judge("status", status, is_page=True).executed is UNKNOWN


@pytest.mark.parametrize(
    ("facts", "is_unbilled", "executed"),
    [
        ({}, True, NO),
        ({}, False, UNKNOWN),
        ({"is_billed": False}, False, NO),
        ({"is_billed": True}, True, UNKNOWN),
        ({"code": "invalid_request"}, False, UNKNOWN),
        ({"code": "invalid_request", "is_billed": True}, True, UNKNOWN),
        ({"code": "content_policy", "is_billed": True}, True, UNKNOWN),
        ({"code": "content_policy", "is_billed": False}, True, NO),
        ({"code": "expired", "is_billed": False}, True, UNKNOWN),
    ],
)
def test_failed_task_is_billed_as_it_says(facts: dict[str, Any], is_unbilled: bool, executed: Executed) -> None:
    """The vendor's own word on the bill comes first, then the catalogue's; what may be billed goes nowhere else."""
    verdict = classify(
        Failure("task", spoke=True, **facts), error_is_unbilled=True, failed_task_is_unbilled=is_unbilled
    )
    assert verdict.executed is executed
    assert executed is NO or not verdict.elsewhere


@pytest.mark.parametrize("status", [500, 502, 503])
def test_flag_makes_vendor_errors_unknown(status: int) -> None:
    """Where the operator says that a vendor's own error may be billed, it is not sent again."""
    verdict = judge("status", status, unbilled=False, **SPOKE)
    assert outline(verdict) == (UNKNOWN, False, False, errors.UpstreamOutcomeUnknown, None, False)
    assert str(status) in verdict.error.message


@pytest.mark.parametrize("word", ["Overloaded", "at capacity", "Server is busy", "no available channel for model"])
@pytest.mark.parametrize("field", ["message", "code", "type"])
def test_overload_is_heard_in_words(word: str, field: str) -> None:
    """A vendor's 503 that says it is overloaded executed nothing, whatever the flag; a proxy's page does not count."""
    said: dict[str, Any] = {field: word}
    assert judge("status", 503, spoke=True, unbilled=False, **said).kind == "overloaded"
    assert judge("status", 503, spoke=False, unbilled=False, **said).kind == "unknown"
    assert judge("status", 500, spoke=True, unbilled=False, **said).kind == "unknown"


@pytest.mark.parametrize("code", sorted(POLICIES))
@pytest.mark.parametrize(
    ("phase", "status"),
    [("status", 400), ("status", 403), ("status", 429), ("status", 500), ("body", 200), ("task", None)],
)
@pytest.mark.parametrize("field", ["code", "type"])
def test_policy_refusal_is_final(code: str, phase: Any, status: int | None, field: str) -> None:
    """A safety system's refusal goes to no other target, in whatever answer it comes."""
    facts: dict[str, Any] = {field: code, "message": "Not that."}
    verdict = judge(phase, status, spoke=True, **facts)
    assert verdict.kind == "policy"
    assert outline(verdict) == (NO, False, False, errors.ModerationBlocked, None, None)
    assert verdict.error.message == "Not that."


def test_billed_refusal_may_have_cost() -> None:
    """Where an operator says that refusals are billed, one may have been."""
    refusal = Failure("status", status=400, spoke=True, code="content_policy")
    assert classify(refusal, error_is_unbilled=True).executed is NO
    assert classify(refusal, error_is_unbilled=True, refusal_is_unbilled=False).executed is UNKNOWN


def test_openai_policy_type_is_known() -> None:
    """OpenAI names the type, not always the code; a refusal without words still says what happened."""
    error = judge("status", 400, type="image_generation_user_error").error
    assert isinstance(error, errors.ModerationBlocked)
    assert "safety system" in error.message


@pytest.mark.parametrize("phase", ["connect", "write", "prepare", "read"])
def test_unanswered_call_has_no_policy(phase: Any) -> None:
    """Where no answer came, no word in the failure makes it a refusal."""
    assert judge(phase, code="content_policy").kind in ("unreachable", "unsent", "unknown")


@pytest.mark.parametrize(
    "facts",
    [
        {"code": "invalid_request"},
        {"code": "invalid_value"},
        {"code": "validation_error"},
        {"code": "failed", "type": "invalid_request_error"},
    ],
)
def test_invalid_task_is_not_bought_elsewhere(facts: dict[str, Any]) -> None:
    """A task that failed for what was asked would fail anywhere."""
    verdict = judge("task", message="n is too large", param="n", **facts)
    assert outline(verdict) == (NO, False, False, errors.InvalidValue, None, None)
    assert verdict.error.param == "n"


def test_unusable_picture_is_the_callers() -> None:
    """A picture that cannot be prepared is a 400 that names its field, at no vendor's cost and with no drift."""
    verdict = judge("prepare", message="The image's pixels are broken.", param="image")
    assert (verdict.kind, verdict.drift) == ("refused", False)
    assert outline(verdict) == (NO, False, False, errors.InvalidValue, None, None)
    assert (verdict.error.param, verdict.error.message) == ("image", "The image's pixels are broken.")
    assert judge("write", param="image").kind == "unsent"


def test_refusal_keeps_param_and_reports_drift() -> None:
    """A vendor's 400 names the field, and tells the operator that our table of abilities is behind."""
    verdict = judge("status", 400, spoke=True, message="bad size", param="size")
    assert (verdict.error.param, verdict.drift, verdict.credential_down) == ("size", True, False)
    assert "bad size" in verdict.error.message
    assert "no reason given" in judge("status", 400).error.message


@pytest.mark.parametrize("status", [401, 402, 403])
def test_credential_trouble_is_the_operators(status: int) -> None:
    """The caller never reads the vendor's words about our account."""
    verdict = judge("status", status, spoke=True, message="key sk-123 has no balance", param="x")
    assert (verdict.credential_down, verdict.drift) == (True, False)
    assert "sk-123" not in verdict.error.message
    assert verdict.error.param is None


@pytest.mark.parametrize(
    ("status", "facts"),
    [
        (429, {"code": "insufficient_quota", "type": "insufficient_quota"}),
        (429, {"code": "credit_balance_exhausted", "type": "insufficient_quota", "retry_after": 3}),
        (429, {"type": "insufficient_quota"}),
        (400, {"code": "billing_hard_limit_reached", "type": "invalid_request_error"}),
        (400, {"code": "billing_hard_limit_reached", "type": "image_generation_user_error"}),
    ],
)
def test_spent_account_is_the_operators(status: int, facts: dict[str, Any]) -> None:
    """Neither a limit to wait for nor a fault of the caller's: another target may serve, and the words stay here."""
    verdict = judge("status", status, message="Billing hard limit has been reached", **facts)
    assert (verdict.kind, verdict.credential_down, verdict.drift) == ("credential", True, False)
    assert outline(verdict) == (NO, False, True, errors.UpstreamUnavailable, 60, None)
    assert "Billing" not in verdict.error.message


@pytest.mark.parametrize(("phase", "status"), [("status", 500), ("body", 200), ("read", None)])
def test_words_of_a_spent_account_prove_nothing_elsewhere(phase: Any, status: int | None) -> None:
    """Only with a status that refuses do they prove that nothing was made."""
    assert judge(phase, status, code="insufficient_quota").kind != "credential"


@pytest.mark.parametrize(("status", "drift"), [(404, True), (422, True), (429, False), (500, False), (521, False)])
def test_drift_means_our_table(status: int, drift: bool) -> None:
    """Only a refusal of what we send points at our own tables; only 401 to 403 at our key."""
    verdict = judge("status", status, **SPOKE)
    assert (verdict.drift, verdict.credential_down) == (drift, False)


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (Failure("read", message="ReadTimeout"), "(ReadTimeout)"),
        (Failure("read"), "(no reason)"),
        (Failure("status", status=504), "answered 504"),
        (Failure("status"), "answered nothing readable"),
        (Failure("task", code="expired", message="late"), "task expired (late)"),
        (Failure("task", code="failed", message="gpu"), "task failed: gpu."),
        (Failure("task", code="failed"), "task failed: failed."),
        (Failure("task"), "no reason given"),
        (Failure("body", message="no image in it"), "(no image in it)"),
        (Failure("collect", message="404"), "could not be downloaded (404)"),
        (Failure("connect"), "cannot be reached"),
    ],
)
def test_messages_say_what_happened(failure: Failure, says: str) -> None:
    """The caller's error tells which of these it was."""
    assert says in classify(failure, error_is_unbilled=True).error.message


@given(
    failure=st.builds(
        Failure,
        st.sampled_from(["prepare", "connect", "write", "read", "status", "body", "task", "collect"]),
        status=st.none() | st.integers(0, 999),
        spoke=st.booleans(),
        code=st.none() | st.text() | st.sampled_from(sorted(POLICIES)),
        type=st.none() | st.text(),
        message=st.text(),
        retry_after=st.none() | st.floats(0, 1e9),
    ),
    unbilled=st.booleans(),
)
def test_doubt_is_never_sent_again(failure: Failure, unbilled: bool) -> None:
    """Whatever the facts: what may have been executed is tried nowhere, and no SDK is told to try it."""
    verdict = classify(failure, error_is_unbilled=unbilled)
    if verdict.executed is not NO:
        assert not verdict.again
        assert not verdict.elsewhere
        assert verdict.error.status in (400, 424)
    assert verdict.error.retry_after is None or 1 <= verdict.error.retry_after <= 120
    assert verdict.elsewhere or not verdict.again
    # What the vendor says about retrying never turns doubt into proof, except for its own overload.
    quiet = classify(replace(failure, retry_after=None), error_is_unbilled=unbilled)
    assert quiet.executed is verdict.executed or failure.status == 503


def test_failed_call_tells_its_facts() -> None:
    """The log line of a failure has its phase, status, code and message, and no empty parts."""
    failure = Failure("status", status=500, code="x", message="boom")
    assert str(CallFailed(failure)) == "status 500 x boom"
    assert str(Failure("read")) == "read"
    assert CallFailed(failure).failure is failure


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("wanted", "cool"), [(7.4, 7.4), (900.0, 900.0), (0.0, 0.1), (0.05, 0.1), (0.1, 0.1)])
def test_target_rests_as_long_as_it_asked(status: int, wanted: float, cool: float) -> None:
    """A target gets no call for the seconds that it named, though a caller is told a shorter wait."""
    assert judge("status", status, retry_after=wanted).cool == cool
    assert judge("status", status, spoke=True, message="overloaded").cool == 5.0
