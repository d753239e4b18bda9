"""The admin API as an operator uses it: requests with a token, to the real gateway over TCP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.gateways import Gateway, Gateways, error_of

TOKEN = "2f1c9a64e07b5d38c1f0a9e6b47d3528"
API = "/admin/api/v1"


@dataclass
class Office:
    """One operator at one gateway; `url` begins every path."""

    gateway: Gateway
    token: str = TOKEN

    def ask(self, method: str, path: str, **rest: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}"} | rest.pop("headers", {})
        return self.gateway.client.request(method, API + path, headers=headers, **rest)

    def get(self, path: str, **params: Any) -> Any:
        """The answer to a GET that must succeed."""
        return self._succeed(self.ask("GET", path, params=params))

    def post(self, path: str, **body: Any) -> Any:
        return self._succeed(self.ask("POST", path, json=body))

    def put(self, path: str, **body: Any) -> Any:
        return self._succeed(self.ask("PUT", path, json=body))

    def patch(self, path: str, **body: Any) -> Any:
        return self._succeed(self.ask("PATCH", path, json=body))

    def delete(self, path: str) -> Any:
        return self._succeed(self.ask("DELETE", path))

    def refuse(self, method: str, path: str, **rest: Any) -> tuple[int, str | None, str | None]:
        """Status, code and param of a request that must fail."""
        answer = self.ask(method, path, **rest)
        error = error_of(answer)
        return answer.status_code, error["code"], error["param"]

    def hire(self, name: str, role: str = "viewer") -> Office:
        """Another operator."""
        return Office(self.gateway, self.post("/operators", name=name, role=role)["token"])

    @staticmethod
    def _succeed(answer: httpx.Response) -> Any:
        assert answer.status_code in (200, 201), answer.text
        return answer.json()


def open_office(gateways: Gateways) -> Office:
    """The office of a gateway whose admin API is on."""
    return Office(gateways.open(settings={"admin_token": TOKEN}))
