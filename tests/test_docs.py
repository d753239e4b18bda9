"""The documents and the code say the same: nothing is missing from a page, and no page knows what the code does not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import typer
import yaml
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bench import rows
from gateway import errors
from gateway.api import healthz
from gateway.app import create_app
from gateway.catalogue import catalogue
from gateway.catalogue.findings import FindingKind
from gateway.catalogue.schema import render_schema
from gateway.cli import check, main
from gateway.cli.resource_checks import FaultKind
from gateway.health import condition
from gateway.jobs.parameter_table import PARAMETERS, PICTURE_NAMES
from gateway.process import settings
from gateway.process.data_folder import Secrets
from gateway.process.settings import Settings
from gateway.upstreams import apiany, verdict
from tests.support.markdown import Page, code, read
from tests.support.processes import clean_environment, gateway, imagegate, until
from tests.support.simulators import Simulator

ROOT = Path(__file__).parent.parent
DOCS = {str(path.relative_to(ROOT)): read(path) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]}
SOURCES = [path for path in (ROOT / "gateway").rglob("*.py") if "simulator" not in path.parts]

API = DOCS["docs/api.md"]
COMMANDS = DOCS["docs/commands.md"]
CONFIGURATION = DOCS["docs/configuration.md"]
UPSTREAMS = DOCS["docs/upstreams.md"]

each_page = pytest.mark.parametrize("page", DOCS.values(), ids=DOCS)


def agree(page: Page, what: str, documented: set[Any], known: set[Any]) -> None:
    """Both sets are one; otherwise say which entries the page lacks, and which it invents."""
    missing, unknown = sorted(known - documented), sorted(documented - known)
    assert not missing, f"{page.path.name} does not tell these {what}: {missing}"
    assert not unknown, f"{page.path.name} tells {what} that the code does not have: {unknown}"


def plain(value: object) -> str:
    """A default as a table shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """The application, over a store that does not exist."""
    where = Settings(data_dir=tmp_path, config=ROOT / "config" / "gateway.yaml")
    return create_app(
        where, store_url="unix:///nowhere", secrets=Secrets(b"p" * 32, b"s" * 32), env={"APIANY_API_KEY": "x"}
    )


def test_every_variable_is_told() -> None:
    """Each GATEWAY_* variable stands in the table with its default, and no other does."""
    rows = {code(row["variable"])[0]: row for row in CONFIGURATION.table("variable").rows}
    agree(CONFIGURATION, "variables", set(rows), set(settings.variables()))
    for field, info in Settings.model_fields.items():
        if isinstance(info.default, str | int | float | Path):
            shown = rows[settings.variable(field)]["default"]
            assert shown == f"`{plain(info.default)}`", f"{settings.variable(field)}: the default is {info.default}"


def test_every_catalogue_field_is_told() -> None:
    """Each field of each part of the catalogue stands in that part's table with its default, and no other does."""
    tables = {table.heading.strip("`"): table for table in CONFIGURATION.tables if table.columns[0] == "field"}
    parts = dict(catalogue_parts("Top level", catalogue.Document))
    agree(CONFIGURATION, "parts of the catalogue", set(tables), set(parts))
    for part, model in parts.items():
        rows = {code(row["field"])[0]: row for row in tables[part].rows}
        agree(CONFIGURATION, f"fields of `{part}`", set(rows), set(model.model_fields))
        for name, info in model.model_fields.items():
            if (wanted := default_cell(info)) is not None:
                assert rows[name]["default"] == wanted, f"{part}.{name}: the default is {wanted}"


def catalogue_parts(name: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """A part of the catalogue and those inside it, each by the field that holds it."""
    yield name, model
    for field, info in model.model_fields.items():
        for inner in models_in(info.annotation):
            yield from catalogue_parts(field, inner)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from models_in(argument)


def default_cell(info: FieldInfo) -> str | None:
    """What the table must show; None for defaults that need words."""
    if info.is_required():
        return "required"
    return f"`{plain(info.default)}`" if isinstance(info.default, str | int | float) else None


def test_schema_is_the_code() -> None:
    """The schema that editors use is the one that the code checks by."""
    shipped = (ROOT / "config" / "gateway.schema.json").read_text(encoding="utf-8")
    assert shipped == render_schema(), "config/gateway.schema.json is old: run `make schema`"


@pytest.mark.parametrize("path", sorted((ROOT / "config").rglob("*.yaml")), ids=lambda path: path.name)
def test_catalogue_loads(path: Path) -> None:
    """Each catalogue that is shipped loads, and with every key set no upstream of it is off."""
    names = re.findall(r"env:(\w+)", path.read_text(encoding="utf-8"))
    loaded = catalogue.load(path, dict.fromkeys(names, "a-key"))
    assert loaded.targets
    assert not loaded.not_configured
    labels = [target.label for target in loaded.targets]
    assert len(labels) == len(set(labels)), "two credentials of an upstream have one name"
    assert path.name in CONFIGURATION.text


async def test_every_route_is_told(app: FastAPI) -> None:
    """Each route stands in the table, and needs a key exactly where the table says so."""
    rows = {(row["method"], code(row["path"])[0]): row for row in API.table("method").rows}
    served = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    agree(API, "routes", set(rows), served)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as caller:
        for (method, path), row in rows.items():
            is_closed = (await caller.request(method, path)).status_code == 401
            assert is_closed == row["key"].startswith("yes"), f"{method} {path}: the table says key {row['key']}"


def test_every_parameter_is_told() -> None:
    """Each parameter that the gateway reads, drops or refuses by name stands in the table, and no other does."""
    rows = API.table("parameter").rows
    agree(API, "parameters", {name for row in rows for name in code(row["parameter"])}, set(PARAMETERS))
    untold = [name for name in PICTURE_NAMES if f"`{name}`" not in API.text]
    assert not untold, f"api.md does not tell these names of pictures: {untold}"


def test_every_error_is_told() -> None:
    """Each status, type and code stands in the table, and no other does."""
    rows = {(int(row["status"]), code(row["type"])[0], code(row["code"])[0]) for row in API.table("status").rows}
    agree(API, "errors", rows, {(kind.status, kind.type, kind.code) for kind in errors.table()})


def test_every_trouble_has_a_remedy() -> None:
    """The page of remedies has each error, each problem of readiness, each finding and each state, and no other."""
    page = DOCS["docs/troubleshooting.md"]

    def told(column: str) -> set[str]:
        return {name for row in page.table(column).rows for name in code(row[column])}

    agree(page, "errors", told("error code"), {str(kind.code) for kind in errors.table()})
    agree(page, "findings", told("finding"), {code(row["kind"])[0] for row in COMMANDS.table("kind").rows})
    agree(page, "states", told("upstream state"), {*get_args(condition.Reason), "ok"})
    problems = {(code(row["problem"])[0], code(row["code"])[0]) for row in page.table("problem").rows}
    raised = re.findall(r'problems\["(\w+)"\] = Problem\("(\w+)"', Path(healthz.__file__).read_text(encoding="utf-8"))
    agree(page, "problems", problems, set(raised))


def test_every_finding_is_told() -> None:
    """Each kind of finding that `check` prints stands in its table, and no other does."""
    source = Path(check.__file__).read_text(encoding="utf-8")
    known = set(re.findall(r'"(?:note|warning|error)", "(\w+)", ', source))
    known |= {*get_args(FindingKind), *get_args(FaultKind)}
    agree(COMMANDS, "findings", {code(row["kind"])[0] for row in COMMANDS.table("kind").rows}, known)


def test_every_header_is_told() -> None:
    """Each x-gateway header that the code sets is explained, and no page speaks of another one."""
    pattern = re.compile(r"x-gateway-[a-z-]*[a-z]")
    known = {name for path in SOURCES for name in pattern.findall(path.read_text(encoding="utf-8"))}
    rows = {name for row in API.table("answer header").rows for name in code(row["answer header"])}
    agree(API, "headers", {name for name in rows if pattern.fullmatch(name)}, known)
    for page in DOCS.values():
        assert set(pattern.findall(page.text)) <= known, f"{page.path.name} speaks of headers that nothing sets"


def test_every_verdict_is_told() -> None:
    """Each verdict on a failure, and each word that is read as one, is in the tables of the upstreams' page."""
    own = [ROOT / "gateway/delivery" / name for name in ("dispatch.py", "call.py", "outcome.py")]
    sources = [Path(verdict.__file__), *own]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    known = set(re.findall(r'Verdict\(\s*"(\w+)"', text)) | set(re.findall(r'kind = "(\w+)" if .* else "\w+"', text))
    known |= set(re.findall(r'kind = "\w+" if .* else "(\w+)"', text))
    rows = {code(row["verdict"])[0] for row in UPSTREAMS.table("verdict").rows}
    agree(UPSTREAMS, "verdicts", rows, known)
    words = verdict.POLICY_CODES | verdict.CREDENTIAL_CODES | apiany.DONE | apiany.FAILED
    untold = {word for word in words if word not in UPSTREAMS.text}
    assert not untold, f"upstreams.md does not tell that these are read: {sorted(untold)}"


def test_every_command_is_told() -> None:
    """Each command has a heading, and each of its options and arguments stands in the table under it."""
    known = dict(commands("imagegate", typer.main.get_command(main.app)))
    headings = {heading.strip("`") for heading in COMMANDS.headings if heading.startswith("`")}
    # A group that does something by itself is a command too.
    groups = {name for name, one in known.items() if hasattr(one, "commands") and not one.invoke_without_command}
    agree(COMMANDS, "commands", headings, set(known) - groups)
    tables = {
        ("imagegate" if table.heading == "Commands" else table.heading.strip("`")): table for table in COMMANDS.tables
    }
    for name, command in known.items():
        rows = {code(row["option"])[0]: row for row in tables[name].rows} if name in tables else {}
        params = {option_name(param): param for param in command.params}
        agree(COMMANDS, f"options of `{name}`", set(rows), set(params))
        for option, param in params.items():
            if isinstance(param.default, str | int | float) and not isinstance(param.default, bool):
                assert rows[option]["default"] == plain(param.default), f"{name} {option}: it is {param.default}"


def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(f"{name} {word}", inner)


def option_name(param: Any) -> str:
    return str(param.metavar) if param.param_type_name == "argument" else str(param.opts[0])


@each_page
def test_named_things_exist(page: Page) -> None:
    """Each make target, file, command and variable that a page names is there."""
    lines = [*page.spans, *(line.strip() for _, block in page.blocks for line in block.splitlines())]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {match[1] for line in lines if (match := re.match(r"make ([a-z-]+)", line))}
    assert named <= targets, f"no such make targets: {sorted(named - targets)}"
    paths = {span for span in page.spans if re.fullmatch(r"(gateway|config|docs|tests|scripts)/[a-z\d_./-]+", span)}
    absent = {path for path in paths if not (ROOT / path).exists()}
    assert not absent, f"no such files: {sorted(absent)}"
    known = {name for name, _ in commands("imagegate", typer.main.get_command(main.app))}
    pattern = r"\bimagegate (?!imagegate\b)(?:(?:keys|limits|operators) )?[a-z]+(?:-[a-z]+)*\b(?!:)"
    typed = {match for line in lines for match in re.findall(pattern, line)}
    assert typed <= known, f"no such commands: {sorted(typed - known)}"
    variables = set(re.findall(r"\bGATEWAY_[A-Z_]*[A-Z]\b", page.text)) - {"GATEWAY_SERVICE", "GATEWAY_PORT"}
    assert variables <= set(settings.variables()), f"no such variables: {variables - set(settings.variables())}"


@each_page
def test_links_lead_somewhere(page: Page) -> None:
    """Each relative link names a file that exists, and a heading that it has."""
    for link in page.links:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        assert target.exists(), f"{page.path.name}: {link} leads nowhere"
        if anchor:
            assert anchor in read(target).anchors, f"{page.path.name}: {link} names no heading of {target.name}"


def test_every_page_is_reached() -> None:
    """Whoever follows links from the README finds every page."""
    found, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path not in found and path.suffix == ".md":
            found.add(path)
            links = (link.partition("#")[0] for link in read(path).links if "://" not in link)
            waiting += [(path.parent / link).resolve() for link in links if link]
    pages = {page.path for page in DOCS.values() if not re.match(r"\d{4}-", page.path.name)}
    assert not pages - found, f"no link leads to {sorted(str(path) for path in pages - found)}"


@each_page
def test_code_is_well_formed(page: Page) -> None:
    """Each block that says its language is of that language."""
    for language, block in page.blocks:
        if language == "python":
            compile(block, str(page.path), "exec")
        elif language == "sh":
            checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
            assert checked.returncode == 0, checked.stderr
        elif language == "json":
            json.loads(block)
        elif language == "yaml":
            yaml.safe_load(block)


@each_page
def test_no_machine_is_named(page: Page) -> None:
    """A page fits every reader's machine."""
    assert not re.findall(r"(?<![\w.])/(?:home|root|Users|work|mnt|opt)/", page.text)


def test_routing_can_be_tried(tmp_path: Path, simulator: Simulator) -> None:
    """Whoever pastes the example of routing sees the cheapest upstream serve, and the next one when that is broken."""
    text = [block for language, block in DOCS["docs/routing.md"].blocks if language == "sh"][-1]
    with gateway(tmp_path / ".imagegate", "--demo", "--port", "0", GATEWAY_SIMULATOR_URL=simulator.url) as run:
        text = text.replace("http://127.0.0.1:8080", run.url)
        env = clean_environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        done = subprocess.run(["bash", "-ec", text], cwd=tmp_path, env=env, check=True, timeout=60, capture_output=True)
        records = until(lambda: read_history(run.data), what="both records")
    shown = done.stdout.decode()
    assert re.findall(r"x-gateway-upstream: ([\w-]+)", shown) == ["apiany", "anyfast-c"]
    assert re.findall(r"x-gateway-cost-usd: ([\d.]+)", shown) == ["0.015000", "0.030000"]
    assert shown.startswith("target\tprice")
    calls = [[(call["upstream"], call["outcome"]) for call in record["calls"]] for record in records]
    assert calls == [[("apiany", "upstream_error"), ("anyfast-c", "delivered")], [("apiany", "delivered")]]


def read_history(data: Path) -> list[dict[str, Any]]:
    """The two records of a data folder, newest first; nothing while one is not written yet."""
    found = json.loads(imagegate("history", "--json", "--data-dir", str(data)).stdout)["data"]
    return found if len(found) == 2 else []


@pytest.mark.parametrize("page", ["docs/performance.md"])
def test_measured_table_is_the_result(page: str) -> None:
    """What a request costs beside others is told as it was measured, figure for figure."""
    measured = json.loads((ROOT / "bench" / "results.json").read_text(encoding="utf-8"))
    assert rows.render(measured) in DOCS[page].text


def test_quick_start_works(tmp_path: Path) -> None:
    """Whoever pastes the README's two examples beside `make run` gets a picture and a link."""
    blocks = DOCS["README.md"].blocks
    python = next(block for language, block in blocks if language == "python")
    shell = next(block for language, block in blocks if language == "sh")
    with gateway(tmp_path / ".imagegate", "--demo", "--port", "0", GATEWAY_SIMULATOR_URL="") as run:
        python, shell = (text.replace("http://127.0.0.1:8080", run.url) for text in (python, shell))
        subprocess.run([sys.executable, "-c", python], cwd=tmp_path, check=True, timeout=60)
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
        answer = subprocess.run(["bash", "-c", shell], cwd=tmp_path, check=True, timeout=60, capture_output=True).stdout
        assert json.loads(answer)["data"][0]["url"].startswith(run.url)


def test_breaking_an_upstream_can_be_watched(tmp_path: Path, simulator: Simulator) -> None:
    """Whoever pastes the README's walk in its order sees the cheapest upstream serve, the next, and the history."""
    walk = DOCS["README.md"].text.partition("## Cheapest first")[2].partition("\n## ")[0]
    quote, ask, break_it, look = (text for _, text in Page(Path("README.md"), walk).blocks)
    env = clean_environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    def paste(program: str, text: str) -> str:
        text = text.replace("http://127.0.0.1:8080", run.url).replace(".venv/bin/", "")
        return subprocess.run(
            [program, "-c", text], cwd=tmp_path, env=env, check=True, timeout=60, capture_output=True, text=True
        ).stdout

    with gateway(tmp_path / ".imagegate", "--demo", "--port", "0", GATEWAY_SIMULATOR_URL=simulator.url) as run:
        assert paste("bash", quote).splitlines()[1].startswith("apiany/main\t$0.015000")
        assert "x-gateway-upstream apiany\n" in paste(sys.executable, ask)
        paste("bash", break_it)
        assert "x-gateway-upstream anyfast-c\n" in paste(sys.executable, ask)
        until(lambda: read_history(run.data), what="both records")
        told = paste("bash", look)
    calls = [line.split("\t")[:2] for line in told.partition("upstream\toutcome")[2].splitlines()[1:3]]
    assert calls == [["apiany/main", "upstream_error"], ["anyfast-c/main", "delivered"]]
    assert "strategy\tcost" in told
    assert "apiany/main\tok" in told
