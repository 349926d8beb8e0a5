"""The documentation is true: its commands run, its links lead somewhere, its tables are whole."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from prove.stack.settings import StackSettings, port_fields
from tests.support.stack import PROVECTL, Stack

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")
TIMEOUT_S = 240
TRIES = 3
LOAD = re.compile(r"^\S*provectl load .*$", re.MULTILINE)

pytestmark = pytest.mark.timeout(TRIES * TIMEOUT_S + 600)


def _scripts(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if _scripts(p)], ids=_name)
def test_commands_run(page: Path, stack: Stack) -> None:
    """Each `sh` block, as printed but for this stack's home and ports; `make` targets must exist.

    (`console` blocks show what is run elsewhere: by the suites, or with files of one's own.)
    A busy shop may refuse an order, so a block has a few tries; and whether a rate is held, which
    is the exit code of `load`, says more of the machine than of the page.
    """
    stack.run("data", "import")
    standard = StackSettings.model_construct()
    for script in _scripts(page):
        script = re.sub(r"^make ", "make --dry-run ", script, flags=re.MULTILINE)
        script = script.replace(".venv/bin/provectl", str(PROVECTL))
        script = script.replace(".prove/", f"{stack.home}/")
        for name in port_fields():
            was, now = getattr(standard, name), getattr(stack.settings, name)
            script = script.replace(f"127.0.0.1:{was}", f"127.0.0.1:{now}")
        script = LOAD.sub(r"\g<0> || [ $? = 1 ]", script)
        for _ in range(TRIES):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=ROOT,
                env={**os.environ, **stack.env},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
            if done.returncode == 0:
                break
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    stack.run("fault", "clear", "--all")


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files(page: Path) -> None:
    missing = [to for to in LINK.findall(page.read_text()) if not (page.parent / to).exists()]
    assert not missing


def test_every_setting_of_the_stack_is_documented() -> None:
    text = (ROOT / "docs/reference/configuration.md").read_text()
    named = {f"PROVE_{name.upper()}" for name in StackSettings.model_fields}
    assert not {name for name in named if f"`{name}`" not in text}
