"""What each process loads at its start: libraries that it does not use cost time and memory at every start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
from gateway.server import worker
from pathlib import Path
from gateway.app import create_app
from gateway.process.data_folder import Secrets
from gateway.process.settings import load_settings
env = {"APIANY_API_KEY": "x", "GATEWAY_DATA_DIR": FOLDER}
create_app(load_settings(env), store_url="unix:///nowhere", secrets=Secrets(b"p" * 32, b"s" * 32), env=env)
"""
SUPERVISOR = "import gateway.cli.main, gateway.cli.serve"
SERVER = {"fastapi", "obstore", "starlette", "uvicorn", "gateway.app", "gateway.simulator"}
MODELS = """
from gateway.server import worker
from gateway.catalogue.document import Document, Limits
print(*(model.__name__ for model in (Document, Limits) if model.__pydantic_complete__))
"""

CASES = {
    "worker": (WORKER, {"obstore", "gateway.admin", "gateway.cli", "gateway.simulator", "typer"}),
    "supervisor": (SUPERVISOR, SERVER | {"httpx", "PIL", "gateway.services"}),
}


@pytest.mark.parametrize("case", CASES)
def test_start_loads_only_what_it_uses(case: str, tmp_path: Path) -> None:
    """Neither a worker nor the supervisor loads a large library or a folder that it does not use."""
    program, needless = CASES[case]
    program = program.replace("FOLDER", repr(str(tmp_path))) + "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "gateway" in loaded
    assert loaded & needless == set()


def test_start_builds_no_validator_of_a_section() -> None:
    """The import of a worker builds no validator for each section of the catalogue: a load uses the document's."""
    done = subprocess.run([sys.executable, "-c", MODELS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
