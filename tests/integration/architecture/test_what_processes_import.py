"""What each kind of process really has in memory: asked of the process, since import-linter does not see what a package drags in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]


def modules_after(code):
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run([sys.executable, "-P", "-c", program], env=environment, cwd="/", capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def packages(modules):
    return {name.partition(".")[0] for name in modules}


def test_the_model_worker_knows_no_settings_no_keys_and_no_database():
    modules = modules_after(
        "import pkgutil, importlib, app.prediction.worker as package\n"
        "for found in pkgutil.iter_modules(package.__path__):\n"
        "    if found.name != '__main__': importlib.import_module(f'app.prediction.worker.{found.name}')\n"
        "import app.prediction.worker.__main__"
    )
    ours = {name for name in modules if name.startswith("app.")}
    allowed = ("app.kernel", "app.errors", "app.prediction.worker", "app.prediction.features", "app.prediction.one_row")
    assert {name for name in ours if not name.startswith(allowed)} == {"app.prediction"}
    assert not packages(modules) & {
        "sqlalchemy",
        "asyncpg",
        "alembic",
        "jose",
        "cryptography",
        "strawberry",
        "starlette",
        "uvicorn",
        "httpx",
    }


def test_the_parent_stays_light():
    """It must be up in a moment and outlive everything: no model library, no GraphQL, no migration tool, no HTTP client."""
    modules = modules_after("import app.cli.main, app.cli.serve, app.supervisor.supervisor, app.supervisor.database")
    assert not packages(modules) & {
        "numpy", "scipy", "sklearn", "pandas", "joblib", "strawberry", "graphql", "starlette", "uvicorn", "alembic", "mako", "httpx", "jose", "rich",
    }  # fmt: skip


def test_help_costs_nothing():
    modules = modules_after("import app.cli.main")
    assert not packages(modules) & {"sqlalchemy", "asyncpg", "httpx", "rich", "cryptography", "jose"}


def test_the_newest_migration_is_found_without_the_migration_tool():
    from app.db.migrate import head
    from app.supervisor.revision import newest_revision

    assert newest_revision() == head()
