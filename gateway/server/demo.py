"""Demo mode: whether the simulator answers, and the key with which to try the gateway.

Used by the supervisor at its start. Never mixes real and simulated upstreams.
"""

from __future__ import annotations

from gateway.callers.key_store import KeyStore
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.document import Document
from gateway.process.data_folder import DataFolder, replace
from gateway.process.settings import StartRefused

SIMULATED_BY = "IMAGEGATE_SIMULATED_BY"
"""Set by the supervisor alone, for its workers: the simulator's URL, which then stands for every upstream."""


class NoUpstreamKey(StartRefused):
    """No upstream can be called."""


def is_simulated(catalogue: Catalogue, *, is_demo: bool) -> bool:
    """Whether the simulator answers. Raises NoUpstreamKey when nothing could."""
    if catalogue.targets:
        return False
    if not is_demo:
        raise NoUpstreamKey(
            f"No upstream key is set. Set at least one of {', '.join(upstream_keys(catalogue.document))}; "
            "or try the gateway without any: imagegate serve --demo"
        )
    return True


def upstream_keys(document: Document) -> list[str]:
    """Where the catalogue looks for upstream keys: names of variables, and paths of files."""
    found = (
        credential.key.removeprefix("env:").removeprefix("file:")
        for upstream in document.upstreams.values()
        for credential in upstream.credentials
    )
    return list(dict.fromkeys(found))


async def demo_key(folder: DataFolder, keys: KeyStore) -> str:
    """A working key for trying the gateway, made at the first call and the same at later ones."""
    if folder.demo_key_path.exists():
        secret = folder.demo_key_path.read_text().strip()
        found = await keys.lookup(secret)
        if found is not None:
            if not found.enabled:
                await keys.enable(found.id)
            return secret
    # Never made, or made for another store: that key would be refused.
    _, secret = await keys.create("demo", demo=True)
    replace(folder.demo_key_path, f"{secret}\n")
    return secret
