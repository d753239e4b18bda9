"""Faults that cut the connection are seen by TCP itself."""

import pytest


@pytest.mark.parametrize(("when", "booked"), [("headers", 0), ("before", 0), ("after", 1)])
def test_reset_respects_acceptance(hand, when, booked):
    """A reset before acceptance leaves no book entry, one after acceptance leaves one."""
    hand.fault("reset", {"when": when})
    with hand.open_socket() as wire:
        hand.raw_generate(wire)
        assert hand.read_all(wire) == (b"", "reset")
    assert len(hand.book()) == booked
    assert (hand.log()[-1]["status"], hand.log()[-1]["ending"]) == (None, "reset")
    assert hand.generate().status_code == 200


def test_reset_in_mid_body(hand):
    """Half the body arrives, then a reset; it was bought and not delivered."""
    hand.fault("reset", {"when": "body"})
    with hand.open_socket() as wire:
        hand.raw_generate(wire)
        received, ending = hand.read_all(wire)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert ending == "reset"
    assert len(body) == length // 2
    assert [purchase["images_delivered"] for purchase in hand.book()] == [0]


def test_large_half_body_arrives_whole(hand):
    """A reset after half of a 12 MB picture throws nothing of that half away."""
    hand.fault("pad", {"bytes": 12_000_000})
    hand.fault("reset", {"when": "body"})
    with hand.open_socket() as wire:
        hand.raw_generate(wire)
        received, ending = hand.read_all(wire)
    assert ending == "reset"
    assert 7_900_000 < len(received) < 8_100_000


def test_truncated_body_is_closed(hand):
    """The declared length is not kept and the connection is closed in good order."""
    hand.fault("truncate", {"share": 0.25})
    with hand.open_socket() as wire:
        hand.raw_generate(wire)
        received, ending = hand.read_all(wire)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert ending == "close"
    assert len(body) == length // 4
    assert hand.log()[-1]["ending"] == "truncated"


@pytest.mark.parametrize(("when", "booked"), [("headers", 0), ("before", 0), ("after", 1)])
def test_hang_never_answers(hand, when, booked):
    """A hanging request is silent until its caller leaves."""
    hand.fault("hang", {"when": when})
    with hand.open_socket() as wire:
        wire.settimeout(0.15)
        hand.raw_generate(wire)
        with pytest.raises(TimeoutError):
            wire.recv(1)
        assert hand.log()[0]["ending"] == "hung"
    assert len(hand.book()) == booked


def test_link_can_be_cut(hand):
    """A picture's link breaks off like any answer, and works again afterwards."""
    link = hand.finish(hand.submit())["result"]["data"][0]["url"]
    hand.fault("truncate", {"share": 0.5}, endpoint="files")
    with hand.open_socket() as wire:
        wire.sendall(f"GET {link.removeprefix(hand.url)} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert hand.read_all(wire)[1] == "close"
    assert hand.client.get(link).status_code == 200


def test_caller_leaving_is_bought_anyway(hand):
    """A caller that hangs up has bought its picture and was delivered nothing."""
    hand.fault("latency", {"seconds": 0.2})
    with hand.open_socket() as wire:
        hand.raw_generate(wire)
        hand.until(lambda: len(hand.book()) == 1)
    hand.until(lambda: hand.log()[0]["ending"] != "open")
    assert hand.log()[0]["ending"] == "caller_left"
    assert hand.book()[0]["images_delivered"] == 0
