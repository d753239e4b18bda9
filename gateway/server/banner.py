"""The banner of `imagegate serve` when it is ready: its address, examples to try it, and how to stop it.

The banner has no key but the demo key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway import __version__

# Without the condition a KeyError would hide an error of the gateway.
_SAVE = (
    "import sys, json, base64; a = json.load(sys.stdin); data = a.get('data'); "
    "data and open('picture.png', 'wb').write(base64.b64decode(data[0]['b64_json'])); "
    "print('saved picture.png' if data else a)"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of the banner. `demo_key` is None outside demo mode; `simulator` is None when real upstreams answer.

    `command` runs this program again in the user's shell, and `activation` begins a line that uses the same Python.
    `on` and `unpriced` are credentials, `upstream/credential`; `off` are the upstreams that are not configured.
    """

    url: str
    data_dir: Path
    store: str
    command: str = "imagegate"
    activation: str = ""
    demo_key: str | None = None
    simulator: str | None = None
    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()


def banner(facts: Facts) -> str:
    """Return the whole text, with examples to paste into a shell."""
    parts = [f"imagegate {__version__} answers on {facts.url}/v1"]
    if facts.simulator is not None:
        parts.append(
            "Demo mode: no upstream key is set, so a SIMULATOR draws the pictures. They cost nothing and show only\n"
            "shapes; every answer has the header `x-gateway-simulated: 1`. Prices are examples, to try budgets with."
        )
    else:
        off = f" Not configured (no key): {', '.join(facts.off)}." if facts.off else ""
        parts.append(f"Real upstreams answer, and pictures cost money. On: {', '.join(facts.on)}.{off}")
        if facts.unpriced:
            parts.append(
                f"No price is known of {', '.join(facts.unpriced)}: keys with a limit in dollars cannot use it,\n"
                "and requests that it could serve are not routed by cost. Give it `prices` in the catalogue."
            )
    if facts.demo_key is None:
        parts.append(f"Make a key for a caller:\n\n  {facts.command} keys create NAME --data-dir {facts.data_dir}")
    else:
        parts.append(
            f"In a second terminal, save a picture as picture.png with curl:\n\n{_curl(facts.url, facts.demo_key)}"
        )
        install = f"{facts.activation}pip install openai"
        parts.append(f"The same with OpenAI's own SDK ({install}):\n\n{_python(facts.url, facts.demo_key)}")
    if facts.simulator is not None:
        parts.append(f"Make the next call fail; another upstream then serves its request:\n\n{_break(facts.simulator)}")
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
    return f"""curl -sS {simulator}/_faults -d '{{"fault": {{"kind": "status", "status": 503}}}}'"""


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
