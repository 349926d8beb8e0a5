"""Images: the Dockerfiles say what the code says, and archives are what container runtimes read."""

import io
import json
import re
import tarfile
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from prove import images
from prove.images import IMAGES, Image
from prove.tools import TOOLS, repository_root

ROOT = repository_root()
BUILT_BY_DOCKER = {name: image for name, image in IMAGES.items() if image.dockerfile}


def parsed(image: Image) -> DockerfileParser:
    content = (ROOT / image.dockerfile).read_bytes()
    return DockerfileParser(fileobj=io.BytesIO(content), env_replace=False)


def last_stage(parser: DockerfileParser) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = parser.structure
    starts = [index for index, step in enumerate(steps) if step["instruction"] == "FROM"]
    return steps[starts[-1] :]


def value_of(steps: list[dict[str, Any]], instruction: str) -> str:
    (value,) = [step["value"] for step in steps if step["instruction"] == instruction]
    return str(value)


@pytest.mark.parametrize("name", BUILT_BY_DOCKER)
def test_a_dockerfile_says_what_the_code_says(name: str) -> None:
    image, parser = IMAGES[name], parsed(IMAGES[name])
    stage = last_stage(parser)

    assert tuple(json.loads(value_of(stage, "ENTRYPOINT"))) == image.entrypoint
    assert tuple(json.loads(value_of(stage, "CMD"))) == image.command
    assert value_of(stage, "USER") == image.user
    assert {k: v for k, v in parser.envs.items() if k != "VERSION"} == dict(image.env)
    wanted = images.labels(image) | {"org.opencontainers.image.version": "${VERSION}"}
    assert parser.labels == wanted
    assert f"VERSION={image.version}" in [s["value"] for s in stage if s["instruction"] == "ARG"]


@pytest.mark.parametrize("name", BUILT_BY_DOCKER)
def test_a_base_is_an_argument_and_names_no_registry(name: str) -> None:
    steps = parsed(IMAGES[name]).structure
    bases = [step["value"].split()[0] for step in steps if step["instruction"] == "FROM"]
    arguments = dict(
        step["value"].split("=", 1)
        for step in steps
        if step["instruction"] == "ARG" and "=" in step["value"]
    )

    assert len(bases) == 2  # what builds is not what runs
    for base in bases:
        default = arguments[re.fullmatch(r"\$\{(\w+)\}", base)[1]]  # type: ignore[index]
        assert "/" not in default
        assert "latest" not in default


@pytest.mark.parametrize("name", BUILT_BY_DOCKER)
def test_whatever_is_copied_is_in_the_context(name: str) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = [line for line in lines if line and not line.startswith("#")]
    for step in parsed(IMAGES[name]).structure:
        if step["instruction"] != "COPY" or "--from" in step["value"]:
            continue
        *sources, _ = step["value"].split()
        for source in sources:
            assert (ROOT / source).exists()
            parents = [source, *map(str, Path(source).parents)]
            assert not [p for p in ignored if any(fnmatch(part, p) for part in parents)]


def test_a_python_image_has_what_its_services_import_and_no_more() -> None:
    pins = {name: pinned(name) for name in ("services", "build", "runtime")}

    assert pins["services"].items() <= pins["runtime"].items()
    assert pins["build"].items() <= pins["runtime"].items()
    assert not {"duckdb", "matplotlib", "chaostoolkit", "typer"} & set(pins["services"])
    for image in IMAGES.values():
        if image.requirements:
            text = (ROOT / image.dockerfile).read_text()
            assert f"--require-hashes -r /requirements/{image.requirements}.txt" in text


def pinned(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_versions_are_those_of_what_is_in_them() -> None:
    chart = yaml.safe_load((ROOT / "charts/prove/Chart.yaml").read_text())
    values = yaml.safe_load((ROOT / "charts/prove/values.yaml").read_text())
    assert chart["appVersion"] == images.VERSION
    for image in IMAGES.values():
        for part in image.values:
            default = values[part]["image"]
            if image.dockerfile:
                assert (default["repository"], default["tag"]) == (image.name, "")
            elif image.program in TOOLS and part != "victorialogs":  # of a commit
                assert default["tag"].removeprefix("v") == TOOLS[image.program].version


def test_the_chart_can_be_told_to_use_these() -> None:
    values = images.chart_values("example.com")

    assert values["image"] == {"registry": "example.com"}
    assert values["order"]["image"] == {"repository": "prove/order-service", "tag": "0.1.0"}
    assert values["prometheus"]["image"]["tag"] == "3.16.0"
    assert IMAGES["order-service"].reference("") == "prove/order-service:0.1.0"
    assert IMAGES["order-service"].reference("a.b") == "a.b/prove/order-service:0.1.0"


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    base, top = tmp_path / "base", tmp_path / "top"
    (base / "usr/bin").mkdir(parents=True)
    (base / "usr/bin/python3").write_text("#!")
    (base / "usr/bin/python").symlink_to("python3")
    (top / "app").mkdir(parents=True)
    (top / "app/x.py").write_text("x")
    return [base, top]


def test_an_archive_is_what_docker_saves(layers: list[Path], tmp_path: Path) -> None:
    image = IMAGES["product-service"]
    out = tmp_path / "image.tar"

    identity = images.archive(image, "prove/x:1", layers, out)

    with tarfile.open(out) as tar:
        (manifest,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = json.load(tar.extractfile(manifest["Config"]))  # type: ignore[arg-type]
        names = []
        for layer, digest in zip(manifest["Layers"], config["rootfs"]["diff_ids"], strict=True):
            assert digest == f"sha256:{layer.removesuffix('.tar')}"
            with tarfile.open(fileobj=tar.extractfile(layer)) as inner:
                for member in inner:
                    assert (member.uid, member.gid, member.mtime) == (0, 0, 0)
                    names.append(member.name)
    assert manifest["RepoTags"] == ["prove/x:1"]
    assert identity == f"sha256:{manifest['Config'].removesuffix('.json')}"
    assert names == ["usr", "usr/bin", "usr/bin/python", "usr/bin/python3", "app", "app/x.py"]
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"] == ["python3", "-m", "product_service"]
    assert "PYTHONPATH=/app" in config["config"]["Env"]


def test_the_same_files_are_the_same_image(layers: list[Path], tmp_path: Path) -> None:
    image = IMAGES["product-service"]
    first = images.archive(image, "x:1", layers, tmp_path / "1.tar")
    (layers[1] / "app/x.py").touch()
    again = images.archive(image, "x:1", layers, tmp_path / "2.tar")
    (layers[1] / "app/x.py").write_text("y")
    other = images.archive(image, "x:1", layers, tmp_path / "3.tar")

    assert first == again != other
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    assert images.archive(replace(image, user="0"), "x:1", layers, tmp_path / "4.tar") != other


def test_nothing_runs_as_root() -> None:
    for image in IMAGES.values():
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.user)
