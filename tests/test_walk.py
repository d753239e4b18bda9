"""How many modules a request walks through, held to the list in docs/architecture.md and to a limit."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from tests.conftest import Valkey
from tests.support.gateways import Simulator, serve
from tests.support.plain_pictures import png

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gateway"

MOST = 60
"""Modules on the walk, at most. Revision 22468c6 had 91; two thirds of them are allowed."""

LEFT_OUT = {"errors", "ids", "dollars", "process.logs", "api.connection.request_log"}
"""Vocabulary that every module may use, and logs. The simulator, which stands for the vendors, is left out too."""

PATIENT = {"connect": 30, "call": 60, "task": 60, "poll": 30, "collect": 60}
"""Time-outs that a busy machine never meets; what follows one is another walk."""

begun_by: ContextVar[str] = ContextVar("begun_by", default="")
"""`start` or `request`, in the tasks, timers and threads that these began; nothing in the server's own callbacks."""


class Walk:
    """The modules in which a function ran for a request, while `server` names the thread that serves it."""

    def __init__(self) -> None:
        self.server: int | None = None
        self.modules: dict[str, str] = {}
        """Module → the function by which it was reached first."""

    def look(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        # A function has local variables of its own; the body of a module or a class has not.
        if self.server is None or event != "call" or not code.co_flags & inspect.CO_OPTIMIZED:
            return
        if (module := name_of(code.co_filename)) is not None and module not in self.modules and self._is_for_request():
            self.modules[module] = code.co_qualname

    def _is_for_request(self) -> bool:
        # Other threads may belong to other tests' gateways.
        return begun_by.get() == "request" or (begun_by.get() == "" and threading.get_ident() == self.server)


@functools.cache
def name_of(file: str) -> str | None:
    """The module of a file of the package, as in `callers.key_store`; None for other files, and for one left out."""
    path = Path(file)
    parts = path.relative_to(PACKAGE).with_suffix("").parts if path.is_relative_to(PACKAGE) else ()
    name = ".".join(part for part in parts if part != "__init__")
    return None if not parts or parts[0] == "simulator" or name in LEFT_OUT else name


def mark(app: ASGIApp) -> ASGIApp:
    """The application, with marks on what its start begins and on what a request begins: both inherit the context."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        begun_by.set("start" if scope["type"] == "lifespan" else "request")
        await app(scope, receive, send)

    return call


def empty_caches() -> None:
    """Empty every `lru_cache` of the package: the walk may not depend on what ran in this process before."""
    for name, module in list(sys.modules.items()):
        for found in vars(module).values() if name.startswith("gateway.") else ():
            if isinstance(found, functools._lru_cache_wrapper):
                found.cache_clear()


@contextmanager
def profiled(walk: Walk) -> Iterator[None]:
    threading.setprofile(walk.look)
    try:
        yield
    finally:
        threading.setprofile(None)


def walk_once(simulator: Simulator, store_url: str) -> Walk:
    """The walk of one edit of two pictures, from its first byte to the last write for it, in a fresh gateway."""
    walk = Walk()
    empty_caches()
    upstreams = {name: {"timeouts": PATIENT} for name in ("anyfast", "anyfast-c", "apiany")}
    limits = {"answer_within": 120, "header_timeout": 60, "body_idle": 60, "fetch_timeout": 60}
    changes = {"upstreams": upstreams, "limits": limits}
    with profiled(walk), serve(simulator, store_url, changes, wrap=mark) as served:
        served.record, served.key = served.new_key()
        files = [("image[]", ("a.png", png(640, 640, colour=colour), "image/png")) for colour in ("red", "blue")]
        walk.server = served.app.state.serving[1].ident
        answer = served.edit(files, model="gpt-image-2", n=3, size="1024x1024")
        served.settle()
        walk.server = None
        assert answer.status_code == 200, answer.text
    return walk


def listed() -> set[str]:
    """The modules that docs/architecture.md lists."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    found = re.search(r"<!-- walk -->(.*?)<!-- /walk -->", text, re.DOTALL)
    assert found is not None, "no list between the markers <!-- walk --> and <!-- /walk -->"
    names = re.findall(r"`gateway/(\S+?)(?:/__init__)?\.py`", found[1])
    assert len(names) == len(set(names)), "a module is listed twice"
    return {name.replace("/", ".") for name in names}


def test_walk_is_as_listed(simulator: Simulator, valkey: Valkey) -> None:
    """An edit of two pictures runs through the modules that docs/architecture.md lists, and no more than allowed."""
    walk = walk_once(simulator, valkey.url).modules
    unlisted = {module: walk[module] for module in sorted(set(walk) - listed())}
    assert unlisted == {}, "docs/architecture.md leaves these out"
    assert sorted(listed() - set(walk)) == [], "docs/architecture.md lists these, but the request does not reach them"
    assert len(walk) <= MOST
