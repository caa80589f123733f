"""docs/unleash.md, as written, against a real Unleash server and a real service with the demo tenants."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.service import ROOT, environment, own_service

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.unleash import RealUnleash

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.xdist_group("unleash")]

BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "unleash.md").read_text(encoding="utf-8"), re.DOTALL)


def test_every_command_of_the_walk_through_works_as_written(unleash: RealUnleash, tmp_path: Path) -> None:
    settings = {
        "TURNOUT_UNLEASH_URL": f"{unleash.url}/api",
        "TURNOUT_UNLEASH_TOKEN": unleash.credentials.backend,
        "TURNOUT_UNLEASH_REFRESH_S": "1",
    }
    assert len(BLOCKS) == 7
    with own_service("--demo", **settings) as service:
        (tmp_path / ".turnout").symlink_to(service.home)
        (tmp_path / ".venv").symlink_to(ROOT / ".venv")
        known = {"UNLEASH": unleash.url, "UNLEASH_ADMIN_TOKEN": unleash.credentials.admin, "HOME": os.environ.get("HOME", "/")}
        script = (
            "set -eu -o pipefail\n" + "until [ -e .turnout/demo-example.json ]; do sleep 0.2; done\n" + "\necho '<<next>>'\n".join(BLOCKS)
        )
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment(service.home, **known), capture_output=True, text=True, timeout=240, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        told = done.stdout.split("<<next>>")
    variants = re.findall(r'"variant": "(\w+)"', told[2])
    assert len(variants) == 12
    assert set(variants) == {"logistic", "boosted"}
    assert "UNLEASH" in told[3]
    assert "COLLECTING" in told[3]
    assert re.search(r'"variant":"(logistic|boosted)","reason":"EXPERIMENT"', told[5])
    assert '"reason": "FLAG_OFF"' in told[6]
