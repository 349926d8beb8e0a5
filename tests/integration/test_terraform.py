"""`terraform/`: formatted, linted, documented, and validated where its providers can be found.

Providers are found by a registry or by a mirror on this machine: `init`, `validate` and `test` run
where TF_CLI_CONFIG_FILE names a configuration that is there, and skip elsewhere. `real.tftest.hcl`
needs a cluster too: the one of KUBE_CONFIG_PATH.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from prove.tools import ensure
from tests.support.terraform import ROOT, TERRAFORM, copied, initialised, run, said

MODULES = sorted(path.parent for path in TERRAFORM.glob("modules/**/variables.tf"))
COMMON = TERRAFORM / "environments" / "common"
ROOTS = sorted(path.parent for path in TERRAFORM.glob("environments/*/*/main.tf"))
EXAMPLES = sorted(path.parent for path in TERRAFORM.glob("modules/*/examples/*/main.tf"))
FILES = ["main.tf", "outputs.tf", "variables.tf", "versions.tf"]
VARIABLE = re.compile(r'^variable "(\w+)" \{\n(.*?)^\}$', re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return str(path.relative_to(TERRAFORM))


@pytest.fixture(scope="session")
def terraform() -> Path:
    return ensure("terraform")["terraform"]


def test_it_is_formatted(terraform: Path, tmp_path: Path) -> None:
    done = run(terraform, "fmt", "-check", "-recursive", "-diff", cwd=TERRAFORM, data=tmp_path)
    assert done.returncode == 0, said(done)


def test_tflint_finds_nothing(tmp_path: Path) -> None:
    tflint = ensure("tflint")["tflint"]
    configuration = f"--config={TERRAFORM / '.tflint.hcl'}"
    done = run(tflint, "--recursive", configuration, cwd=TERRAFORM, data=tmp_path)
    assert done.returncode == 0, said(done)


@pytest.mark.parametrize("module", [*MODULES, COMMON], ids=name)
def test_a_readme_is_of_its_module(module: Path, tmp_path: Path) -> None:
    """terraform-docs parses it, and would write what is there."""
    docs = ensure("terraform-docs")["terraform-docs"]
    own = module / ".terraform-docs.yml"
    configuration = own if own.is_file() else TERRAFORM / ".terraform-docs.yml"
    done = run(docs, "--output-check", "-c", configuration, module, cwd=TERRAFORM, data=tmp_path)
    assert done.returncode == 0, said(done)


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_has_its_form(module: Path) -> None:
    assert sorted(path.name for path in module.glob("*.tf")) == FILES
    for variable, body in VARIABLE.findall((module / "variables.tf").read_text()):
        for part in ("description =", "type ", "validation {"):
            assert part in body, f"{variable} has no {part.split()[0]}"
    text = "".join(path.read_text() for path in module.glob("*.tf"))
    assert not re.findall(r'^provider "', text, re.MULTILINE), "a module configures no provider"
    if module.parent == TERRAFORM / "modules":
        assert list(module.glob("examples/*/main.tf"))


def test_nothing_shells_out() -> None:
    forbidden = re.compile(r'null_resource|provisioner "|local-exec|data "external"|\bexec \{')
    for path in TERRAFORM.rglob("*.tf"):
        assert not forbidden.search(path.read_text()), path


def test_each_root_has_a_state_of_its_own() -> None:
    environments = {"dev", "staging", "production"}
    assert {name(root) for root in ROOTS} == {
        f"environments/{one}/{root}" for one in environments for root in ("cluster", "platform")
    }
    keys = []
    for root in ROOTS:
        text = (root / "versions.tf").read_text()
        backend = re.search(r'backend "(\w+)" \{', text)
        assert backend, root
        assert backend[1] == ("local" if "dev" in root.parts else "s3")
        keys += re.findall(r'key = "(.+)"', text)
    assert sorted(keys) == sorted(set(keys))
    assert len(keys) == 4


def test_the_cost_is_the_one_that_is_told(terraform: Path, tmp_path: Path) -> None:
    """The arithmetic needs no provider; the tables say what it comes to."""
    cost = TERRAFORM / "modules" / "cluster-eks" / "cost"
    copy = shutil.copytree(cost, tmp_path / "cost")
    for command in (("init", "-no-color"), ("test", "-no-color")):
        done = run(terraform, *command, cwd=copy, data=tmp_path)
        assert done.returncode == 0, said(done)
    totals = re.findall(r"\.total == ([\d.]+)", (cost / "tests" / "cost.tftest.hcl").read_text())
    assert len(totals) == 4
    for page in (cost.parent / "README.md", ROOT / "docs" / "how-to" / "run-on-aws.md"):
        assert not [total for total in totals if f"${total}" not in page.read_text()], page


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: `init` leaves files beside what it initialises."""
    return copied(tmp_path_factory.mktemp("terraform"))


@pytest.mark.parametrize("directory", [*MODULES, COMMON, *ROOTS, *EXAMPLES], ids=name)
def test_it_is_valid(terraform: Path, copy: Path, directory: Path) -> None:
    here = copy / directory.relative_to(TERRAFORM)
    initialised(terraform, here)
    done = run(terraform, "validate", "-no-color", cwd=here, data=here)
    assert done.returncode == 0, said(done)


@pytest.mark.parametrize(
    "file",
    sorted(TERRAFORM.rglob("tests/mocked.tftest.hcl")),
    ids=lambda file: name(file.parents[1]),
)
def test_it_plans_and_applies_what_is_asked(terraform: Path, copy: Path, file: Path) -> None:
    here = copy / file.parents[1].relative_to(TERRAFORM)
    initialised(terraform, here)
    only = f"-filter=tests/{file.name}"
    done = run(terraform, "test", "-no-color", only, cwd=here, data=here)
    assert done.returncode == 0, said(done)


def test_a_cluster_takes_the_namespace(terraform: Path, copy: Path) -> None:
    if "KUBE_CONFIG_PATH" not in os.environ:
        pytest.skip("KUBE_CONFIG_PATH names no cluster to apply to")
    here = copy / "modules" / "namespace"
    initialised(terraform, here)
    done = run(terraform, "test", "-no-color", "-filter=tests/real.tftest.hcl", cwd=here, data=here)
    assert done.returncode == 0, said(done)
