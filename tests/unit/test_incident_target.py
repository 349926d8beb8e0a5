"""Where incidents can be run."""

from pathlib import Path

import pytest

from prove.errors import UserError
from prove.incident import target
from prove.stack.settings import StackSettings

FILE = """
profile: standard
urls:
  product: https://shop.example/products/
  order: https://shop.example/orders
  payment: https://shop.example/payments
  prometheus: https://prometheus.example
  alertmanager: https://alertmanager.example
"""


def test_an_installation_by_its_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(FILE)
    monkeypatch.setenv("PROVE_ADMIN_TOKEN", "secret")
    found = target.by_file(path)

    assert found.settings is None
    assert found.profile == "standard"
    assert found.configuration["product_url"] == "https://shop.example/products"
    assert "injector_url" not in found.configuration
    assert found.token == "secret"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("profile: standard", "profile: fast", "shop.yaml:2: profile:"),
        ("  order: https://shop.example/orders\n", "", "shop.yaml:3: urls.order: is required"),
        ("  payment:", "  payments:", "shop.yaml:6: urls.payments: is not a field"),
        (FILE, "", "must hold one document"),
        (FILE, "- [", "shop.yaml:"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, told: str
) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(FILE.replace(old, new))
    monkeypatch.setenv("PROVE_ADMIN_TOKEN", "secret")
    with pytest.raises(UserError) as error:
        target.by_file(path)
    assert told in str(error.value)


def test_without_a_token_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(FILE)
    monkeypatch.delenv("PROVE_ADMIN_TOKEN", raising=False)
    with pytest.raises(UserError, match="set PROVE_ADMIN_TOKEN to the admin token"):
        target.by_file(path)
    with pytest.raises(UserError, match="cannot be read"):
        target.by_file(tmp_path / "none.yaml")


def test_where_no_drill_runs_there_is_none(tmp_path: Path) -> None:
    assert target.running(StackSettings(home=tmp_path)) is None
