"""The parts of `provectl up --on` that need no cluster; tests/cluster/test_up.py has the others."""

from pathlib import Path
from typing import Any

import pytest

from prove import images
from prove.kubernetes import forwards
from prove.kubernetes.context import Context, mebibytes
from prove.kubernetes.release import own_images
from prove.stack.settings import on_free_ports


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("24569312Ki", 23993),
        ("512Mi", 512),
        ("2Gi", 2048),
        ("1Ti", 1 << 20),
        ("1073741824", 1024),
        ("1000M", 953),
        ("4G", 3814),
        ("1048575", 0),
    ],
)
def test_memory_as_kubernetes_writes_it(quantity: str, expected: int) -> None:
    assert mebibytes(quantity) == expected


@pytest.mark.parametrize("quantity", ["", "lots", "1.5Gi", "-1Gi", "1Xi"])
def test_what_is_no_quantity_is_refused(quantity: str) -> None:
    with pytest.raises(ValueError, match="no quantity of memory"):
        mebibytes(quantity)


def test_only_our_images_come_from_the_registry() -> None:
    values = own_images("registry.example.com/shop")
    ours = {part for image in images.IMAGES.values() if image.dockerfile for part in image.values}
    assert set(values) == ours
    assert "prometheus" not in values
    assert values["order"]["image"]["registry"] == "registry.example.com/shop"


def test_services_in_the_mesh_are_forwarded_past_their_proxies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["order", "payment", "order-pods", "edge"]

    def get(*_: Any) -> Any:
        return {"items": [{"metadata": {"name": name}} for name in names]}

    context = Context("here", "prove", Path("kubectl"), Path("helm"))
    monkeypatch.setattr(Context, "get", get)
    settings = on_free_ports(tmp_path)
    found = {spec.name: spec.argv[-2:] for spec in forwards.specs(settings, context)}
    assert found == {
        "order": ("deployment/order", f"{settings.order_port}:18002"),
        "payment": ("service/payment", f"{settings.payment_port}:8003"),
    }
