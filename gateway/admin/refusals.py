"""What goes wrong below an admin route, as the public error that says so. Used by `guarded` around every route."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi.exceptions import RequestValidationError

from gateway import errors
from gateway.callers.key_store import NoSuchKey
from gateway.callers.operator_store import NoSuchOperator, OperatorExists
from gateway.money.ledger_results import InvalidArgument
from gateway.store.client import StoreUnavailable


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the store and the framework refuse as errors that an operator understands."""
    try:
        yield
    except RequestValidationError as error:
        raise explain(error.errors()[0]) from error
    except NoSuchKey as error:
        raise errors.KeyNotFound("There is no key of this id.", param="key_id") from error
    except NoSuchOperator as error:
        raise errors.OperatorNotFound("There is no operator of this name.", param="name") from error
    except OperatorExists as error:
        raise errors.InvalidValue("There is an operator of this name already.", param="name") from error
    except InvalidArgument as error:
        raise errors.InvalidValue(f"`{error.argument}` is not taken by the ledger.", param=error.argument) from error
    except StoreUnavailable as error:
        raise errors.QuotaStoreUnavailable(
            "The gateway's Redis does not answer. Try again shortly.", retry_after=5
        ) from error


def explain(detail: dict[str, Any]) -> errors.PublicError:
    """One finding of pydantic as an error that names its field."""
    kind, place = str(detail["type"]), detail["loc"]
    if kind == "json_invalid" or (place == ("body",) and kind != "missing"):
        return errors.InvalidValue("The body must be a JSON object, sent as application/json.")
    if place == ("body",):
        return errors.MissingParameter("This needs a body: a JSON object, sent as application/json.")
    # The place begins with where it was looked for: body, path or query.
    param = ".".join(str(part) for part in place[1:])[:200]
    if kind == "missing":
        return errors.MissingParameter(f"`{param}` is required.", param=param)
    if kind == "extra_forbidden":
        return errors.UnknownParameter("There is no such field.", param=param)
    reason = str(detail["msg"]).removeprefix("Value error, ")
    return errors.InvalidValue(f"`{param}` is refused: {reason[:300]}.", param=param)
