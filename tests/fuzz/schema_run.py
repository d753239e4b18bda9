"""schemathesis over one OpenAPI document: `python -m tests.fuzz.schema_run DOCUMENT_URL TOKEN EXAMPLES`.

It asks each operation, right and wrong by its schema, and fails where an answer is not as the document says.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from urllib.parse import urlsplit

import hypothesis
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.openapi import from_url
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

SAID = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)


def main() -> None:
    """Ask every operation so often in all; print how often each status came."""
    document, token, examples = sys.argv[1], sys.argv[2], int(sys.argv[3])
    auth = {"authorization": f"Bearer {token}"}
    parts = urlsplit(document)
    base = f"{parts.scheme}://{parts.netloc}"
    schema = from_url(document, headers=auth)
    operations = [found.ok() for found in schema.get_all_operations()]
    statuses: Counter[int] = Counter()
    for operation, mode in itertools.product(operations, MODES):

        @hypothesis.settings(
            max_examples=max(1, examples // (2 * len(operations))),
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            answer = case.call(base_url=base, headers=auth)
            statuses[answer.status_code] += 1
            case.validate_response(answer, checks=SAID)

        try:
            ask()
        except hypothesis.errors.Unsatisfiable:
            # Nothing is wrong by the schema of an operation that takes nothing.
            continue
    sys.stdout.write(f"{dict(sorted(statuses.items()))}\n")


if __name__ == "__main__":
    main()
