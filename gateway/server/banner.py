"""What `imagegate serve` says when it is ready: where it answers, how to try it, how to stop it.

Made by the supervisor. Never shows any key but the demo key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway import __version__

# An error is printed as it came; without the condition a KeyError would hide it.
_SAVE = (
    "import sys, json, base64; a = json.load(sys.stdin); data = a.get('data'); "
    "data and open('picture.png', 'wb').write(base64.b64decode(data[0]['b64_json'])); "
    "print('saved picture.png' if data else a)"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the banner tells. `demo_key` None is outside demo mode; `simulator` None when real upstreams answer.

    `command` runs this program again from the caller's shell, on the same data folder; `on`, `off` and
    `unpriced` are upstreams.
    """

    url: str
    data_dir: Path
    store: str
    command: str = "imagegate"
    demo_key: str | None = None
    simulator: str | None = None
    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()


def banner(facts: Facts) -> str:
    """The whole text, whose examples can be pasted into a shell."""
    parts = [f"imagegate {__version__} answers on {facts.url}/v1"]
    if facts.simulator is not None:
        parts.append(
            "Demo mode: no upstream key is set, so a SIMULATOR draws the pictures. They cost nothing and show nothing\n"
            "but shapes; every answer says `x-gateway-simulated: 1`. Prices are examples, for trying budgets."
        )
    else:
        off = f" Off, for want of a key: {', '.join(facts.off)}." if facts.off else ""
        parts.append(f"Real upstreams answer, and pictures cost money. On: {', '.join(facts.on)}.{off}")
        if facts.unpriced:
            parts.append(
                f"No price is known of {', '.join(facts.unpriced)}: keys with a limit in dollars cannot use it,\n"
                "and nothing is routed by cost where it could serve. Give it `prices` in the catalogue."
            )
    if facts.demo_key is None:
        parts.append(f"Make a key for a caller:\n\n  {facts.command} keys create NAME --data-dir {facts.data_dir}")
    else:
        parts.append(
            f"In a second terminal, save a picture as picture.png with curl:\n\n{_curl(facts.url, facts.demo_key)}"
        )
        parts.append(f"The same with OpenAI's own SDK (pip install openai):\n\n{_python(facts.url, facts.demo_key)}")
    if facts.simulator is not None:
        parts.append(
            f"Break a vendor and see another one serve, or `-X DELETE` to mend it:\n\n{_break(facts.simulator)}"
        )
    parts.append(f"Data is kept in {facts.data_dir} (store: {facts.store}). Ctrl-C stops everything.")
    return "\n" + "\n\n".join(parts) + "\n"


def _curl(url: str, key: str) -> str:
    return "\n".join(
        (
            f"curl -sS {url}/v1/images/generations \\",
            f'  -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\',
            """  -d '{"model": "gpt-image-2", "prompt": "a red fox in the snow"}' \\""",
            f'  | python3 -c "{_SAVE}"',
        )
    )


def _break(simulator: str) -> str:
    rule = '{"upstream": "apiany", "times": null, "fault": {"kind": "status", "status": 503}}'
    return f"curl -sS {simulator}/_faults -d '{rule}'"


def _python(url: str, key: str) -> str:
    return "\n".join(
        (
            "import base64",
            "from openai import OpenAI",
            f'client = OpenAI(base_url="{url}/v1", api_key="{key}")',
            'answer = client.images.generate(model="gpt-image-2", prompt="a red fox in the snow")',
            'open("picture.png", "wb").write(base64.b64decode(answer.data[0].b64_json))',
        )
    )
