"""The key to try the gateway with: private, the same at every start, and never a lost one."""

from pathlib import Path

from gateway.callers.key_store import KeyStore
from gateway.process.data_folder import DataFolder
from gateway.server.demo import demo_key
from gateway.store.client import StoreClient

PEPPER = b"p" * 32


async def test_demo_key_is_kept(redis: StoreClient, tmp_path: Path) -> None:
    """The demo key is private, the same at every start, and works again after it was deleted or disabled."""
    folder, keys = DataFolder(tmp_path), KeyStore(redis, PEPPER)
    first = await demo_key(folder, keys)
    assert folder.demo_key_path.read_text() == f"{first}\n"
    assert folder.demo_key_path.stat().st_mode & 0o777 == 0o600
    assert await demo_key(folder, keys) == first
    made = await keys.lookup(first)
    assert made is not None
    assert made.enabled
    await keys.disable(made.id)
    assert await demo_key(folder, keys) == first
    again = await keys.lookup(first)
    assert again is not None
    assert again.enabled
    await keys.delete(made.id)
    other = await demo_key(folder, keys)
    assert other != first
    assert await keys.lookup(other) is not None
