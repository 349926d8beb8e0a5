"""The parts of `provectl up --on` that need no cluster; tests/cluster/test_up.py has the others."""

import pytest

from prove import images
from prove.kubernetes.context import mebibytes
from prove.kubernetes.release import own_images


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
