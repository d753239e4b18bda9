"""`imagegate support-bundle`: one archive that explains a gateway to somebody else, without a secret in it.

It is written also if settings, catalogue or store are at fault; then these parts say so.
"""

from __future__ import annotations

import io
import os
import platform
import re
import shutil
import tarfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, cast

import orjson
import typer
from pydantic import SecretStr

from gateway import __version__
from gateway.catalogue.catalogue import Catalogue, CatalogueError, load
from gateway.catalogue.mask import make_mask, make_mask_of_environment
from gateway.cli import healthcheck
from gateway.cli.check import find_remarks
from gateway.cli.options import bad_option
from gateway.cli.store import DataDir, with_store
from gateway.history.export import show_time
from gateway.net.outside_text import Mask
from gateway.operations.log_tail import read_log_tail
from gateway.operations.support import Facts, clean_facts, collect_facts
from gateway.process.data_folder import DataFolder, open_private
from gateway.process.redis_url import read_redis_url
from gateway.process.settings import Settings, SettingsError, StartRefused, is_loopback, load_settings, variable

_ENDINGS = (".zip", ".tar.gz", ".tgz")
_LISTS = {"cors_origins", "trusted_proxies"}
_ABOUT = """This bundle describes one imagegate gateway, to find the cause of a fault.

versions.json   imagegate, Python, libraries, system
settings.json   every setting; of a secret only if it is set
catalogue.json  the catalogue as it is written, without prices; of keys only their `env:` or `file:` reference
check.json      the findings of `imagegate check`
folder.json     the data folder: which files it has, and its free space
ready.json      the answer of the gateway on this machine to /readyz
store.json      the store's server: version, memory, persistence
upstreams.json  the state of each credential, and what is paused
errors.json     answers of the last days by status and code, and the last errors
ledger.json     the numbers of the audit
counts.json     how many keys, tasks, journal entries and messages there are
log.json        with --log: the last lines of the log

It holds no secret, no prompt, no picture, no text of a vendor, no price and no amount of money. Inner addresses are
hidden. It has ids of keys, requests and tasks, and the names that are in the catalogue or in a pause. Read it before
you send it.
"""


class BundleFailed(StartRefused):
    """The archive could not be written."""


def support_bundle(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write: .zip, .tar.gz or .tgz.")],
    log: Annotated[
        Path | None, typer.Option(metavar="LOG", help="The gateway's log as JSON lines; its end is added.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write an archive that explains this gateway to somebody who helps: no secret, no prompt, no picture.

    \b
    imagegate support-bundle bundle.tar.gz
    imagegate support-bundle bundle.zip --log /var/log/imagegate.log
    """
    if not file.name.endswith(_ENDINGS):
        raise bad_option("file", f"{file.name!r} has none of the endings {', '.join(_ENDINGS)}")
    if file.exists():
        raise BundleFailed(f"{file} exists already; name another file")
    env = dict(os.environ) | ({} if data_dir is None else {variable("data_dir"): str(data_dir)})
    parts, mask = _collect(env, data_dir, log)
    members = {"README.txt": _ABOUT.encode()}
    for name, facts in parts.items():
        members[f"{name}.json"] = orjson.dumps(clean_facts(facts, mask), option=orjson.OPT_INDENT_2)
    try:
        with open_private(file) as output:
            output.write(_pack(members, file.name))
    except OSError as error:
        raise BundleFailed(f"{file} cannot be written ({error.strerror})") from error
    typer.echo(f"{file}: {', '.join(members)}. Read it before you send it.")


def _collect(env: Mapping[str, str], data_dir: Path | None, log: Path | None) -> tuple[dict[str, Facts], Mask]:
    """Every part of the bundle by its name, and the mask that must clean all of them."""
    parts: dict[str, Facts] = {"versions": _read_versions()}
    mask = make_mask_of_environment(env)
    try:
        settings = load_settings(env)
    except SettingsError as error:
        # Their texts quote the values.
        parts["settings"] = {"wrong": sorted({line.partition(":")[0] for line in error.problems})}
    else:
        parts["settings"] = _describe_settings(settings)
        catalogue, found = _read_catalogue(settings, env)
        if catalogue is not None:
            mask = make_mask(settings, catalogue, env, own=DataFolder(settings.data_dir).find_secrets())
        parts |= found
        parts["folder"] = _describe_folder(settings.data_dir)
        parts["ready"] = healthcheck.ask(settings)
        parts |= _read_store(data_dir)
    if log is not None:
        parts["log"] = _read_log(log)
    return parts, mask


def _read_versions() -> Facts:
    return {
        "made": show_time(time.time_ns() // 1000),
        "imagegate": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        # Texts with a blank: four numbers and points alone look like an address.
        "libraries": list(_list_libraries()),
    }


def _list_libraries() -> Iterator[str]:
    """The libraries that the package needs, and the embedded server's if it is installed, with their versions."""
    with suppress(metadata.PackageNotFoundError):
        lines = metadata.requires("imagegate") or ()
        wanted = (one for one in lines if "extra ==" not in one or "embedded" in one)
        for name in sorted({re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in wanted}):
            with suppress(metadata.PackageNotFoundError):
                yield f"{name} {metadata.version(name)}"


def _describe_settings(settings: Settings) -> Facts:
    found: Facts = {}
    for name, value in settings:
        shown: Any = "set" if isinstance(value, SecretStr) else value
        found[variable(name)] = list(shown) if name in _LISTS else str(shown) if isinstance(shown, Path) else shown
    if settings.redis_url is not None:
        url = read_redis_url(settings.redis_url.get_secret_value())
        found[variable("redis_url")] = {"form": url.kind, "hosts": len(url.hosts), "is_encrypted": url.is_encrypted}
    if settings.storage_url is not None:
        found[variable("storage_url")] = f"{settings.storage_url.partition(':')[0]}:…"
    found[variable("host")] = "this machine alone" if is_loopback(settings.host) else "reached by other machines"
    return found


def _read_catalogue(settings: Settings, env: Mapping[str, str]) -> tuple[Catalogue | None, dict[str, Facts]]:
    """The catalogue, or None if it is wrong; the parts `catalogue` and `check`."""
    try:
        catalogue = load(settings.config, env)
    except CatalogueError as error:
        # Without the texts: they may quote a key that stands in the wrong place.
        lines = [int(line) for line in re.findall(rf"(?m)^{re.escape(str(settings.config))}:(\d+):", str(error))]
        return None, {"catalogue": {"wrong_lines": lines}}
    written = _hide_prices(catalogue.document.model_dump(mode="json", exclude_unset=True))
    parts = {"catalogue": written | {"not_configured": catalogue.not_configured}, "check": _check(settings, catalogue)}
    return catalogue, parts


def _hide_prices(value: Any) -> Any:
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        return {name: "set" if name == "prices" and one else _hide_prices(one) for name, one in fields.items()}
    return [_hide_prices(one) for one in cast(list[Any], value)] if isinstance(value, list) else value


def _check(settings: Settings, catalogue: Catalogue) -> Facts:
    try:
        remarks, unread = find_remarks(settings, catalogue)
    except (StartRefused, OSError) as error:
        return {"unread": type(error).__name__}
    for one in remarks:
        if one["kind"] == "drift":
            # The example is a vendor's.
            one["message"] = one["message"].partition(": ")[0]
    return {"findings": remarks, "unread": unread or None}


def _describe_folder(path: Path) -> Facts:
    """The data folder: the number and the bytes of the files in each folder, and no file's name but its own ones."""
    if not path.is_dir():
        return {"exists": False}
    running = DataFolder(path).running_gateway()
    usage = shutil.disk_usage(path)
    folders: dict[str, dict[str, int]] = {}
    for inner in sorted(one for one in path.iterdir() if one.is_dir()):
        sizes = [Path(root, name).lstat().st_size for root, _, files in os.walk(inner) for name in files]
        folders[inner.name] = {"files": len(sizes), "bytes": sum(sizes)}
    return {
        "exists": True,
        "gateway_runs": running is not None,
        "gateway_stops": running is not None and running.stops_by is not None,
        "files": sorted(one.name for one in path.iterdir() if one.is_file()),
        "folders": folders,
        "free_bytes": usage.free,
        "total_bytes": usage.total,
    }


def _read_store(data_dir: Path | None) -> dict[str, Facts]:
    """The parts that come from the store; only `store`, with the reason, if it cannot be opened."""
    try:
        return with_store(data_dir, collect_facts)
    except (StartRefused, OSError) as refusal:
        return {"store": {"unread": str(refusal)}}


def _read_log(path: Path) -> Facts:
    try:
        return read_log_tail(path)
    except OSError as error:
        return {"unread": error.strerror or "not readable"}


def _pack(members: Mapping[str, bytes], name: str) -> bytes:
    """The archive's bytes, with all members in one folder; its kind follows the ending of its name."""
    packed, now = io.BytesIO(), time.time()
    if name.endswith(".zip"):
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in members.items():
                archive.writestr(f"imagegate-support/{member}", data)
        return packed.getvalue()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for member, data in members.items():
            entry = tarfile.TarInfo(f"imagegate-support/{member}")
            entry.size, entry.mtime, entry.mode = len(data), int(now), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
