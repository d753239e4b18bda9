"""Callback addresses: only this gateway can make one, each is for one call, and trust in callbacks is earned."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.process.settings import Settings
from gateway.upstreams.callback_urls import TRUSTED_AFTER, Callbacks, CallbackTrust, open_callbacks

OURS = Callbacks("https://images.example.com/gw", b"s" * 32)


def token_of(address: str) -> str:
    return parse_qs(urlsplit(address).query)["token"][0]


def test_address_is_known_again() -> None:
    """What this gateway made it recognizes, and so does a replica with the same secret."""
    address = OURS.address("apiany", "task_1", "call_1")
    assert address.startswith("https://images.example.com/gw/callbacks/apiany/task_1/call_1?token=")
    assert OURS.knows("apiany", "task_1", "call_1", token_of(address))
    assert Callbacks("http://elsewhere", b"s" * 32).knows("apiany", "task_1", "call_1", token_of(address))


@pytest.mark.parametrize(
    ("kind", "task", "call"), [("openai", "task_1", "call_1"), ("apiany", "task_2", "call_1"), ("apiany", "task_1", "")]
)
def test_address_is_for_one_call(kind: str, task: str, call: str) -> None:
    """A token opens no other address."""
    token = token_of(OURS.address("apiany", "task_1", "call_1"))
    assert not OURS.knows(kind, task, call, token)


def test_token_cannot_be_guessed() -> None:
    """No part of a token, no token of another secret and no strange text is taken for it."""
    token = token_of(OURS.address("apiany", "task_1", "call_1"))
    other = token_of(Callbacks("https://images.example.com/gw", b"o" * 32).address("apiany", "task_1", "call_1"))
    assert len(token) == 43
    for wrong in ("", token[:-1], token + "A", token.swapcase(), other, "é" * 43, "\udcff"):
        assert not OURS.knows("apiany", "task_1", "call_1", wrong)


def test_secret_is_not_shown() -> None:
    """Whoever prints it does not see the secret."""
    assert "ssss" not in repr(OURS)


def test_callbacks_need_both_settings() -> None:
    """Without an address or without a secret there are none."""
    assert open_callbacks(Settings(public_url="https://images.example.com")) is None
    assert open_callbacks(Settings.model_validate({"callback_secret": "s" * 32})) is None
    both = {"public_url": "https://images.example.com", "callback_secret": "s" * 32}
    assert open_callbacks(Settings.model_validate(both)) == Callbacks("https://images.example.com", b"s" * 32)


def test_trust_is_earned_and_lost() -> None:
    """A few tasks in a row must have been told of; one that was not takes it all away."""
    trust = CallbackTrust()
    for _ in range(TRUSTED_AFTER):
        assert not trust.is_earned
        trust.note(was_told=True)
    assert trust.is_earned
    trust.note(was_told=False)
    assert not trust.is_earned
