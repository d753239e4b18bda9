"""Demo mode: the choice of the simulator, and the key to try the gateway with.

This module never mixes real and simulated upstreams.
"""

from __future__ import annotations

from gateway.callers.key_record import KeyRecord
from gateway.callers.key_store import KeyStore
from gateway.catalogue.catalogue import Catalogue
from gateway.catalogue.document import Document
from gateway.process.data_folder import DataFolder, replace
from gateway.process.settings import StartRefused

SIMULATED_BY = "IMAGEGATE_SIMULATED_BY"
"""The variable with the URL of the simulator that replaces every upstream. The supervisor sets it for its workers."""


class NoUpstreamKey(StartRefused):
    """No upstream is configured."""


def is_simulated(catalogue: Catalogue, *, is_demo: bool) -> bool:
    """True when the simulator answers. Raises NoUpstreamKey when no upstream is configured outside demo mode."""
    if catalogue.targets:
        return False
    if not is_demo:
        raise NoUpstreamKey(
            f"No upstream key is set. Set {name_needed_keys(catalogue.document)}; "
            "or try the gateway without any: imagegate serve --demo"
        )
    return True


def name_needed_keys(document: Document) -> str:
    """Return the need of `serve` for one of the catalogue's upstream keys, as a part of a sentence."""
    names = upstream_keys(document)
    return names[0] if len(names) == 1 else f"at least one of {', '.join(names)}"


def upstream_keys(document: Document) -> list[str]:
    """Return the sources of upstream keys in the catalogue: names of variables, and paths of files."""
    found = (
        credential.key.removeprefix("env:").removeprefix("file:")
        for upstream in document.upstreams.values()
        for credential in upstream.credentials
    )
    return list(dict.fromkeys(found))


async def demo_key(folder: DataFolder, keys: KeyStore) -> str:
    """Return the secret of the key to try the gateway with. Make the key if the folder has none that this store knows.

    A new secret is written to the folder. A disabled key is enabled.
    """
    if folder.demo_key_path.exists():
        secret = folder.demo_key_path.read_text().strip()
        found = await keys.lookup(secret)
        if found is not None:
            if not found.enabled:
                await keys.enable(found.id)
            return secret
    # There is none, or this store does not know it.
    _, secret = await keys.create("demo", demo=True)
    replace(folder.demo_key_path, f"{secret}\n")
    return secret


async def disable_demo_keys(keys: KeyStore) -> list[KeyRecord]:
    """Disable the keys that demo mode made, since it gives them no limits; return those that were enabled."""
    found = [key for key in await keys.list() if key.demo and key.enabled]
    for key in found:
        await keys.disable(key.id)
    return found
