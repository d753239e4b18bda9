"""Every error a caller can meet, as status, type and code, in OpenAI's shape."""

import orjson
import pytest

from gateway import errors
from gateway.errors import PublicError

INVALID, SERVER, UPSTREAM = "invalid_request_error", "server_error", "upstream_error"

TABLE = {
    errors.UnknownParameter: (400, INVALID, "unknown_parameter"),
    errors.InvalidValue: (400, INVALID, "invalid_value"),
    errors.UnsupportedValue: (400, INVALID, "unsupported_value"),
    errors.MissingParameter: (400, INVALID, "missing_required_parameter"),
    errors.ModerationBlocked: (400, "image_generation_user_error", "moderation_blocked"),
    errors.InvalidApiKey: (401, INVALID, "invalid_api_key"),
    errors.ModelNotAllowed: (403, "permission_error", "model_not_allowed"),
    errors.UpstreamNotAllowed: (403, "permission_error", "upstream_not_allowed"),
    errors.KeyDisabled: (403, "permission_error", "key_disabled"),
    errors.AddressNotAllowed: (403, "permission_error", "address_not_allowed"),
    errors.RoleNotAllowed: (403, "permission_error", "role_not_allowed"),
    errors.ModelNotFound: (404, INVALID, "model_not_found"),
    errors.UnsupportedEndpoint: (404, INVALID, "unsupported_endpoint"),
    errors.UnknownRoute: (404, INVALID, "unknown_url"),
    errors.TaskNotFound: (404, INVALID, "task_not_found"),
    errors.ArtifactNotFound: (404, INVALID, "artifact_not_found"),
    errors.KeyNotFound: (404, INVALID, "key_not_found"),
    errors.TeamNotFound: (404, INVALID, "team_not_found"),
    errors.OperatorNotFound: (404, INVALID, "operator_not_found"),
    errors.RecordNotFound: (404, INVALID, "record_not_found"),
    errors.UpstreamNotFound: (404, INVALID, "upstream_not_found"),
    errors.WebhookNotFound: (404, INVALID, "webhook_not_found"),
    errors.MethodNotAllowed: (405, INVALID, "method_not_allowed"),
    errors.RequestTimeout: (408, INVALID, "request_timeout"),
    errors.TaskCanceled: (410, INVALID, "task_canceled"),
    errors.RequestTooLarge: (413, INVALID, "request_too_large"),
    errors.IdempotencyMismatch: (422, INVALID, "idempotency_mismatch"),
    errors.UpstreamOutcomeUnknown: (424, UPSTREAM, "upstream_outcome_unknown"),
    errors.UpstreamBadResponse: (424, UPSTREAM, "upstream_bad_response"),
    errors.UpstreamFailed: (424, UPSTREAM, "upstream_failed"),
    errors.RateLimited: (429, "rate_limit_error", "rate_limit_exceeded"),
    errors.QueueFull: (429, "rate_limit_error", "queue_full"),
    errors.InsufficientQuota: (429, "insufficient_quota", "insufficient_quota"),
    errors.HeadersTooLarge: (431, INVALID, "request_too_large"),
    errors.ClientClosedRequest: (499, INVALID, "client_closed_request"),
    errors.InternalError: (500, SERVER, "internal_error"),
    errors.UpstreamError: (502, SERVER, "upstream_error"),
    errors.UpstreamUnavailable: (503, SERVER, "upstream_unavailable"),
    errors.Paused: (503, SERVER, "paused"),
    errors.QuotaStoreUnavailable: (503, SERVER, "quota_store_unavailable"),
    errors.StorageFull: (503, SERVER, "storage_full"),
    errors.Overloaded: (503, SERVER, "overloaded"),
    errors.TaskStillRunning: (504, SERVER, "task_still_running"),
}
"""The design's table of errors. Callers' code depends on every word of it: a change here breaks somebody."""

KINDS = sorted(TABLE, key=lambda kind: kind.__name__)


def test_table_holds_every_error() -> None:
    """No error is raised that is not in the table, and none is listed twice."""
    assert set(errors.table()) == set(TABLE)
    assert len(errors.table()) == len(TABLE)
    assert [kind.status for kind in errors.table()] == sorted(kind.status for kind in TABLE)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_error_keeps_its_words(kind: type[PublicError]) -> None:
    """Status, type and code are what the table says, and each error says what it means."""
    assert (kind.status, kind.type, kind.code) == TABLE[kind]
    assert kind.meaning.endswith(".")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_body_has_openais_shape(kind: type[PublicError]) -> None:
    """The SDKs read message, type, param and code of one object, message as a string."""
    body = orjson.loads(orjson.dumps(kind("What was wrong.", param="size").body()))
    _, name, code = TABLE[kind]
    assert body == {"error": {"message": "What was wrong.", "type": name, "param": "size", "code": code}}
    assert kind("x").body()["error"]["param"] is None


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (errors.Overloaded("x"), {}),
        (errors.Overloaded("x", retry_after=5), {"retry-after": "5"}),
        (errors.Overloaded("x", retry_after=0), {"retry-after": "0"}),
        (errors.UpstreamFailed("x", should_retry=False), {"x-should-retry": "false"}),
        (
            errors.TaskStillRunning("x", should_retry=True, retry_after=1),
            {"x-should-retry": "true", "retry-after": "1"},
        ),
    ],
    ids=repr,
)
def test_retry_advice_is_in_headers(error: PublicError, headers: dict[str, str]) -> None:
    """The SDKs take Retry-After and x-should-retry from headers; without advice there are none."""
    assert error.all_headers() == headers


def test_own_headers_are_kept() -> None:
    """A header that was added to one error is on that error alone."""
    error = errors.UpstreamFailed("x", retry_after=2)
    error.headers["x-gateway-task"] = "task_1"
    assert error.all_headers() == {"x-gateway-task": "task_1", "retry-after": "2"}
    assert errors.UpstreamFailed("x").all_headers() == {}
    assert str(error) == "x"
