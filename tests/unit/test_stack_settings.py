from pathlib import Path

import pytest

from prove.errors import UserError
from prove.stack import settings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings.StackSettings.model_fields:
        monkeypatch.delenv(f"PROVE_{name.upper()}", raising=False)


def test_defaults_are_the_documented_ports() -> None:
    loaded = settings.load()
    assert (loaded.product_port, loaded.order_port, loaded.payment_port) == (8001, 8002, 8003)
    assert loaded.ports["prometheus"] == 9090
    assert loaded.home == Path.cwd() / ".prove"


def test_empty_means_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "PRODUCT_PORT", "PORT_OFFSET"):
        monkeypatch.setenv(f"PROVE_{name}", "")
    loaded = settings.load()
    assert (loaded.home, loaded.product_port) == (Path.cwd() / ".prove", 8001)


def test_offset_moves_all_ports_but_those_set_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROVE_PORT_OFFSET", "1000")
    monkeypatch.setenv("PROVE_ORDER_PORT", "7000")
    loaded = settings.load()
    assert (loaded.product_port, loaded.order_port, loaded.prometheus_port) == (9001, 7000, 10090)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROVE_ORDER_PORT", "99999"),
        ("PROVE_PRODUCT_PORT", "http"),
        ("PROVE_PORT_OFFSET", "-1"),
        ("PROVE_PORT_OFFSET", "many"),
        ("PROVE_READY_TIMEOUT_S", "0"),
    ],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError) as caught:
        settings.load()
    assert str(caught.value).startswith(f"{variable}: ")
    assert str(caught.value).endswith(f"(got '{value}')")
    assert "\n" not in str(caught.value)


def test_two_settings_of_one_port_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVE_ORDER_PORT", "9090")
    with pytest.raises(UserError) as caught:
        settings.load()
    assert str(caught.value) == (
        "PROVE_ORDER_PORT and PROVE_PROMETHEUS_PORT are both 9090; give each its own port"
    )


def test_a_port_tells_its_variable() -> None:
    assert settings.load().port_variable(8003) == "PROVE_PAYMENT_PORT"
