"""Every error that a caller or an operator can get: status, type, code and meaning, in OpenAI's shape.

`docs/api.md` has the same table.

    PublicError
    ├── 400  UnknownParameter, InvalidValue, UnsupportedValue, MissingParameter, ModerationBlocked
    ├── 401  InvalidApiKey
    ├── 403  ModelNotAllowed, UpstreamNotAllowed, KeyDisabled, AddressNotAllowed, RoleNotAllowed
    ├── 404  ModelNotFound, UnsupportedEndpoint, UnknownRoute, TaskNotFound, ArtifactNotFound
    │        KeyNotFound, TeamNotFound, OperatorNotFound, RecordNotFound, UpstreamNotFound, WebhookNotFound
    ├── 405  MethodNotAllowed       408  RequestTimeout        413  RequestTooLarge
    ├── 410  TaskCanceled
    ├── 422  IdempotencyMismatch
    ├── 424  UpstreamOutcomeUnknown, UpstreamBadResponse, UpstreamFailed
    ├── 429  RateLimited, QueueFull, InsufficientQuota         431  HeadersTooLarge
    ├── 499  ClientClosedRequest
    └── 5xx  InternalError, UpstreamError, UpstreamUnavailable, Paused, QuotaStoreUnavailable, StorageFull,
             Overloaded, TaskStillRunning
"""

from __future__ import annotations

from typing import Any, ClassVar


class PublicError(Exception):
    """An error for a caller or an operator. `message` describes the fault; `param` names the wrong field, or is None.

    `retry_after` is in seconds and becomes `retry-after`. `should_retry` becomes `x-should-retry`, which the OpenAI
    SDKs obey. None sets no header.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    meaning: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.should_retry = should_retry
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        """Return the error in OpenAI's shape: `{"error": {message, type, param, code}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def to_facts(self) -> dict[str, Any]:
        """Return the error as JSON values, for `read_error`. Its `headers` are left out."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "param": self.param,
            "retry_after": self.retry_after,
            "should_retry": self.should_retry,
        }

    def all_headers(self) -> dict[str, str]:
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        return headers


class UnknownParameter(PublicError):
    status, type, code = 400, "invalid_request_error", "unknown_parameter"
    meaning = "The endpoint has no such field."


class InvalidValue(PublicError):
    status, type, code = 400, "invalid_request_error", "invalid_value"
    meaning = (
        "A field of the wrong type or outside its range, a malformed body, or a request that the upstream refused."
    )


class UnsupportedValue(PublicError):
    status, type, code = 400, "invalid_request_error", "unsupported_value"
    meaning = "A valid value that no upstream of the model supports, or over the key's caps; the message says why."


class MissingParameter(PublicError):
    status, type, code = 400, "invalid_request_error", "missing_required_parameter"
    meaning = "A required field is missing."


class ModerationBlocked(PublicError):
    status, type, code = 400, "image_generation_user_error", "moderation_blocked"
    meaning = "The upstream's safety system refused the prompt or the picture."


class InvalidApiKey(PublicError):
    status, type, code = 401, "invalid_request_error", "invalid_api_key"
    meaning = "The key is missing, unknown or expired."


class ModelNotAllowed(PublicError):
    status, type, code = 403, "permission_error", "model_not_allowed"
    meaning = "The key may not use this model, or none of the upstreams that serve it."


class UpstreamNotAllowed(PublicError):
    status, type, code = 403, "permission_error", "upstream_not_allowed"
    meaning = "The key may not choose an upstream, or not this one."


class KeyDisabled(PublicError):
    status, type, code = 403, "permission_error", "key_disabled"
    meaning = "The key is disabled."


class AddressNotAllowed(PublicError):
    status, type, code = 403, "permission_error", "address_not_allowed"
    meaning = "The key may not be used from this address."


class RoleNotAllowed(PublicError):
    status, type, code = 403, "permission_error", "role_not_allowed"
    meaning = "The operator may read, and this request would change something."


class ModelNotFound(PublicError):
    status, type, code = 404, "invalid_request_error", "model_not_found"
    meaning = "There is no such model, at the gateway or at the upstream; the message says which."


class UnsupportedEndpoint(PublicError):
    status, type, code = 404, "invalid_request_error", "unsupported_endpoint"
    meaning = "An OpenAI endpoint that this gateway does not serve; the message names the endpoint to use."


class UnknownRoute(PublicError):
    status, type, code = 404, "invalid_request_error", "unknown_url"
    meaning = "There is no such path."


class TaskNotFound(PublicError):
    status, type, code = 404, "invalid_request_error", "task_not_found"
    meaning = "The key has no task of this id."


class ArtifactNotFound(PublicError):
    status, type, code = 404, "invalid_request_error", "artifact_not_found"
    meaning = "The link is wrong or has expired."


class KeyNotFound(PublicError):
    status, type, code = 404, "invalid_request_error", "key_not_found"
    meaning = "There is no API key of this id."


class TeamNotFound(PublicError):
    status, type, code = 404, "invalid_request_error", "team_not_found"
    meaning = "No key and no limit belongs to this team."


class OperatorNotFound(PublicError):
    status, type, code = 404, "invalid_request_error", "operator_not_found"
    meaning = "There is no operator of this name."


class RecordNotFound(PublicError):
    status, type, code = 404, "invalid_request_error", "record_not_found"
    meaning = "The history has no request of this id, or no longer keeps it."


class WebhookNotFound(PublicError):
    status, type, code = 404, "invalid_request_error", "webhook_not_found"
    meaning = "No message of this id is queued or given up."


class UpstreamNotFound(PublicError):
    status, type, code = 404, "invalid_request_error", "upstream_not_found"
    meaning = "The catalogue has no upstream of this name, or no enabled target of this label."


class MethodNotAllowed(PublicError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"
    meaning = "The path has no such method."


class RequestTimeout(PublicError):
    status, type, code = 408, "invalid_request_error", "request_timeout"
    meaning = "The request's body did not arrive in time."


class TaskCanceled(PublicError):
    status, type, code = 410, "invalid_request_error", "task_canceled"
    meaning = "The task was canceled before anything was sent for it; nothing was billed."


class RequestTooLarge(PublicError):
    status, type, code = 413, "invalid_request_error", "request_too_large"
    meaning = "The body or one image is over the limit."


class IdempotencyMismatch(PublicError):
    status, type, code = 422, "invalid_request_error", "idempotency_mismatch"
    meaning = "The same id was used for a different request or change."


class UpstreamOutcomeUnknown(PublicError):
    status, type, code = 424, "upstream_error", "upstream_outcome_unknown"
    meaning = "The answer was lost. The call may have been billed, so the gateway does not send it again."


class UpstreamBadResponse(PublicError):
    status, type, code = 424, "upstream_error", "upstream_bad_response"
    meaning = "The upstream answered 200 without a usable image."


class UpstreamFailed(PublicError):
    status, type, code = 424, "upstream_error", "upstream_failed"
    meaning = "The upstream accepted the request and failed later."


class RateLimited(PublicError):
    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"
    meaning = (
        "A limit per minute or of concurrent requests is reached, at the gateway or at the upstream, or too many wrong "
        "keys came from this address; Retry-After says when to retry."
    )


class QueueFull(PublicError):
    status, type, code = 429, "rate_limit_error", "queue_full"
    meaning = (
        "All places at the suitable upstreams are taken, and the queue is full or the request waited too long; nothing "
        "was sent."
    )


class InsufficientQuota(PublicError):
    status, type, code = 429, "insufficient_quota", "insufficient_quota"
    meaning = (
        "A budget, or a number of images per day or month, is used up; the message names it and says when it resets."
    )


class HeadersTooLarge(PublicError):
    status, type, code = 431, "invalid_request_error", "request_too_large"
    meaning = "The request's headers are over the limit."


class ClientClosedRequest(PublicError):
    status, type, code = 499, "invalid_request_error", "client_closed_request"
    meaning = "The client ended its side of the connection before the answer; the task goes on."


class InternalError(PublicError):
    status, type, code = 500, "server_error", "internal_error"
    meaning = "The gateway failed; the request id finds the error in its log."


class UpstreamError(PublicError):
    status, type, code = 502, "server_error", "upstream_error"
    meaning = "The upstream failed and billed nothing."


class UpstreamUnavailable(PublicError):
    status, type, code = 503, "server_error", "upstream_unavailable"
    meaning = "No upstream accepted the request; nothing was billed."


class Paused(PublicError):
    status, type, code = 503, "server_error", "paused"
    meaning = (
        "An operator paused the gateway, the key's team, or every upstream that could serve the request; nothing was "
        "sent. Retry-After is the end of the pause, if it has one."
    )


class QuotaStoreUnavailable(PublicError):
    status, type, code = 503, "server_error", "quota_store_unavailable"
    meaning = "Redis does not answer, so the gateway starts nothing that costs money."


class StorageFull(PublicError):
    status, type, code = 503, "server_error", "storage_full"
    meaning = "The gateway's disk or object storage is full or unavailable."


class Overloaded(PublicError):
    status, type, code = 503, "server_error", "overloaded"
    meaning = "The gateway has too many requests or bytes of uploads in progress, or is shutting down."


def shutting_down() -> Overloaded:
    """Make the error of a process that shuts down; another process can take the request."""
    return Overloaded("The gateway is shutting down; send the request again.", retry_after=1)


class TaskStillRunning(PublicError):
    status, type, code = 504, "server_error", "task_still_running"
    meaning = "The answer is not ready before the caller's time-out; the task goes on."


OF_OPERATORS: frozenset[type[PublicError]] = frozenset(
    {
        RoleNotAllowed,
        KeyNotFound,
        TeamNotFound,
        OperatorNotFound,
        RecordNotFound,
        WebhookNotFound,
        UpstreamNotFound,
    }
)
"""The errors that only operators get."""


def table() -> list[type[PublicError]]:
    """Return the classes of all public errors, sorted by status and then by code."""
    return sorted(PublicError.__subclasses__(), key=lambda kind: (kind.status, kind.code or ""))


def read_error(facts: dict[str, Any]) -> PublicError:
    """Make the error that `to_facts` described. For an unknown kind it is an InternalError with the same message."""
    kinds = {kind.__name__: kind for kind in table()}
    rest = {name: facts[name] for name in ("param", "retry_after", "should_retry")}
    return kinds.get(facts["kind"], InternalError)(facts["message"], **rest)
