"""The meaning of an upstream's failure: was the call executed, is a retry allowed, which error does the caller get.

Pure functions from a Failure, which holds the facts, to a Verdict. They are the project's contract on retries of a paid
POST: a call counts as executed unless there is proof that it was not.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

from gateway import errors
from gateway.errors import PublicError

Phase = Literal["prepare", "connect", "write", "read", "status", "body", "task", "collect"]


@dataclass(frozen=True, slots=True)
class Failure:
    """The facts of one failed call.

    `phase`: prepare (a free step before the call), connect (never reached it), write (the body was not sent whole),
    read (sent, no whole answer), status (an answer other than 2xx), body (a 2xx without usable images), task (a ticket
    that failed), collect (the images exist, but were not downloaded or stored). `spoke` is True when the answer was the
    vendor's own JSON error, `is_page` when it was a page of HTML, which a proxy writes. Every text is cleaned of
    secrets and inner addresses. `retry_after` is in seconds, `leads_to` the address that a redirect names, `start` the
    first bytes, as they came, of a 2xx answer without a usable image. `is_billed` is the vendor's own report on a
    failed task, None without one.
    """

    phase: Phase
    status: int | None = None
    spoke: bool = False
    code: str | None = None
    type: str | None = None
    message: str = ""
    param: str | None = None
    retry_after: float | None = None
    is_page: bool = False
    leads_to: str = ""
    start: bytes = field(default=b"", repr=False, compare=False)
    is_billed: bool | None = None

    def __str__(self) -> str:
        parts = [self.phase, str(self.status or ""), self.code or "", self.message]
        return " ".join(part for part in parts if part)


class CallFailed(Exception):
    """A request to an upstream, or a step for it, failed. `failure` has the facts."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Executed(Enum):
    """The assumed state of a failed call: not executed and not billed, unknown, or executed and billed."""

    NO = "no"
    UNKNOWN = "unknown"
    YES = "yes"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The consequences of a failure. With `again` the same target may get the call again, with `elsewhere` another one.

    `error` is for the caller. `cool` is the seconds for which the target should get no calls. `credential_down` means
    that the credential is rejected, `drift` that the answer is a deviation from the catalogue.
    """

    kind: str
    executed: Executed
    again: bool
    elsewhere: bool
    error: PublicError
    credential_down: bool = False
    drift: bool = False
    cool: float = 0.0


POLICY_CODES = frozenset(
    {
        "content_policy",
        "content_policy_violation",
        "content_filter",
        "image_safety",
        "moderation_blocked",
        "safety_violation",
        "sensitive_words_detected",
    }
)
"""Explicit refusals by a safety system: from vendors' documentation, OpenAI's API and relays of its kind."""

CREDENTIAL_CODES = frozenset(
    {
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "insufficient_credits",
        "insufficient_quota",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)
"""Codes of the operator's spent account: OpenAI sends them with a 400 or 429, which would mean something else."""

UNFIT = "unfit_for_this_upstream"
"""The gateway's code for a picture that one upstream cannot take and another may, as its preparation found."""

_NOT_TAKEN = frozenset(
    {301, 302, 307, 308, 406, 407, 410, 411, 412, 414, 416, 417, 421, 425, 426, 428, 431, 451, 501, 505, 511}
)
"""Statuses that a server answers before it executes anything (RFC 9110, 6585, 7725, 8470).

Not 303, which is sent once the work is done, and neither 408, 409 nor 424, which may come after it began.
"""

_BAD_REQUESTS = frozenset({400, 405, 413, 415, 422})
_CREDENTIAL = frozenset({401, 402, 403})
_REFUSALS = _BAD_REQUESTS | _CREDENTIAL

_VALIDATION_CODES = frozenset({"invalid_request", "invalid_value", "validation_error"})
_CAPACITY = ("overloaded", "at capacity", "server is busy", "no available channel")
_NO_RETRY = "it is not sent again, because it may have been billed"


def classify(
    failure: Failure,
    *,
    error_is_unbilled: bool,
    refusal_is_unbilled: bool = True,
    failed_task_is_unbilled: bool = True,
) -> Verdict:
    """Return the verdict on a failure. Each flag is an operator's promise about the upstream.

    `error_is_unbilled`: its own JSON error with status 500, 502 or 503 proves that nothing was billed.
    `refusal_is_unbilled`: a refusal by its safety system proves it. `failed_task_is_unbilled`: a failed task proves it,
    unless the upstream itself reports a bill.
    """
    if failure.phase == "prepare" and failure.param is not None:
        return _unprepared(failure)
    if failure.phase in ("prepare", "connect", "write"):
        return _unsent(failure)
    if failure.phase == "read":
        return _unknown(failure, "The upstream took the request, but its answer was lost")
    # Before the policy: a spent account was seen under the safety system's own type.
    if _is_spent(failure):
        return _credential()
    if _is_policy(failure):
        is_unbilled = refusal_is_unbilled if failure.is_billed is None else not failure.is_billed
        return _policy(failure, Executed.NO if is_unbilled else Executed.UNKNOWN)
    if failure.phase == "body":
        error = errors.UpstreamBadResponse(
            f"The upstream answered without a usable image ({failure.message}); {_NO_RETRY}.", should_retry=False
        )
        return Verdict("bad_response", Executed.YES, again=False, elsewhere=False, error=error)
    if failure.phase == "collect":
        error = errors.UpstreamFailed(
            f"The upstream made the image, but it could not be downloaded ({failure.message}).", should_retry=False
        )
        return Verdict("not_collected", Executed.YES, again=False, elsewhere=False, error=error)
    if failure.phase == "task":
        return _task(failure, failed_task_is_unbilled)
    return _status(failure, error_is_unbilled)


def _unprepared(failure: Failure) -> Verdict:
    """The verdict on the gateway's own failed preparation. In the phase `prepare` no other failure has a `param`."""
    if failure.code == UNFIT:
        unfit = errors.UnsupportedValue(failure.message, param=failure.param)
        return Verdict("unfit", Executed.NO, again=False, elsewhere=True, error=unfit)
    wrong = errors.InvalidValue(failure.message, param=failure.param)
    return Verdict("refused", Executed.NO, again=False, elsewhere=False, error=wrong)


def _unsent(failure: Failure) -> Verdict:
    error = errors.UpstreamUnavailable("The upstream cannot be reached; nothing was billed.", retry_after=5)
    kind = "unreachable" if failure.phase == "connect" else "unsent"
    return Verdict(kind, Executed.NO, again=failure.phase == "connect", elsewhere=True, error=error)


def _unknown(failure: Failure, what: str) -> Verdict:
    error = errors.UpstreamOutcomeUnknown(
        f"{what} ({failure.message or 'no reason'}); {_NO_RETRY}.", should_retry=False
    )
    return Verdict("unknown", Executed.UNKNOWN, again=False, elsewhere=False, error=error)


def _is_policy(failure: Failure) -> bool:
    named = {failure.code, failure.type} & POLICY_CODES
    return bool(named) or failure.type == "image_generation_user_error"


def _is_spent(failure: Failure) -> bool:
    named = {failure.code, failure.type} & CREDENTIAL_CODES
    return failure.phase == "status" and failure.status in (400, 429) and bool(named)


def _policy(failure: Failure, executed: Executed) -> Verdict:
    # The caller may read the reason. Texts about the operator's credential are never passed on.
    error = errors.ModerationBlocked(failure.message or "The upstream's safety system refused this request.")
    return Verdict("policy", executed, again=False, elsewhere=False, error=error)


def _task(failure: Failure, failed_task_is_unbilled: bool) -> Verdict:
    if failure.code == "expired":
        return _unknown(failure, "The upstream's task expired")
    verdict = _failed_task(failure)
    is_unbilled = failed_task_is_unbilled if failure.is_billed is None else not failure.is_billed
    return verdict if is_unbilled else replace(verdict, executed=Executed.UNKNOWN, elsewhere=False)


def _failed_task(failure: Failure) -> Verdict:
    if failure.code in _VALIDATION_CODES or failure.type == "invalid_request_error":
        return _refused(failure)
    if failure.code in CREDENTIAL_CODES:
        return _credential()
    error = errors.UpstreamFailed(
        f"The upstream's task failed: {failure.message or failure.code or 'no reason given'}.", should_retry=False
    )
    return Verdict("task_failed", Executed.NO, again=False, elsewhere=True, error=error)


def _credential() -> Verdict:
    # Never the vendor's text: it is about the operator's credential.
    error = errors.UpstreamUnavailable(
        "The upstream rejected the gateway's credential; its operator is notified.", retry_after=60
    )
    return Verdict("credential", Executed.NO, again=False, elsewhere=True, error=error, credential_down=True)


def _refused(failure: Failure) -> Verdict:
    message = failure.message or "no reason given"
    error = errors.InvalidValue(f"The upstream refused the request: {message}", param=failure.param)
    return Verdict("refused", Executed.NO, again=False, elsewhere=False, error=error, drift=True)


def _not_taken(failure: Failure, status: int) -> Verdict:
    """The verdict on an answer that comes before any work: a status of `_NOT_TAKEN`, or a proxy's page."""
    if status == 413:
        error: PublicError = errors.RequestTooLarge(
            "A proxy in front of the upstream takes no request of this size; send smaller pictures."
        )
    else:
        who = "A proxy in front of the upstream" if failure.is_page else "The upstream"
        error = errors.UpstreamUnavailable(f"{who} did not take the request ({_reason(failure)}); nothing was billed.")
    return Verdict("not_taken", Executed.NO, again=False, elsewhere=True, error=error)


def _reason(failure: Failure) -> str:
    """The status, and the reason where the answer has one."""
    return f"{failure.status}{failure.message and ': '}{failure.message}"


def _status(failure: Failure, error_is_unbilled: bool) -> Verdict:
    status = failure.status or 0
    if status in _NOT_TAKEN or (failure.is_page and status in _REFUSALS):
        return _not_taken(failure, status)
    if status == 429:
        wait = _seconds(failure.retry_after, 60)
        error: PublicError = errors.RateLimited(
            "The upstream's rate limit is reached; nothing was billed.", retry_after=wait
        )
        return Verdict("rate_limited", Executed.NO, again=True, elsewhere=True, error=error, cool=_cool(failure))
    if status in _CREDENTIAL:
        return _credential()
    if status == 404:
        error = errors.ModelNotFound(
            "The upstream does not know the model it is configured for; its operator is notified."
        )
        return Verdict("missing", Executed.NO, again=False, elsewhere=True, error=error, drift=True)
    if status in _BAD_REQUESTS:
        return _refused(failure)
    if _is_capacity(failure, status):
        error = errors.UpstreamUnavailable(
            "The upstream is overloaded; nothing was billed.", retry_after=_seconds(failure.retry_after, 120)
        )
        return Verdict("overloaded", Executed.NO, again=True, elsewhere=True, error=error, cool=_cool(failure))
    if status in (500, 502, 503) and failure.spoke and error_is_unbilled:
        error = errors.UpstreamError("The upstream failed and says so itself; nothing was billed.")
        return Verdict("upstream_error", Executed.NO, again=False, elsewhere=True, error=error)
    return _unknown(failure, f"The upstream answered {status or 'nothing readable'}")


def _is_capacity(failure: Failure, status: int) -> bool:
    if status in (521, 522, 523):
        return True
    text = f"{failure.code} {failure.type} {failure.message}".lower()
    said = failure.spoke and any(word in text for word in _CAPACITY)
    return status == 503 and (failure.retry_after is not None or said)


def _cool(failure: Failure) -> float:
    """The seconds that the upstream named, at least 0.1; 5 where it named none."""
    return 5.0 if failure.retry_after is None else max(failure.retry_after, 0.1)


def _seconds(wanted: float | None, most: int) -> int:
    """Whole seconds for Retry-After, 1 to `most`; 5 where the upstream named none."""
    return min(max(round(wanted if wanted is not None else 5), 1), most)
