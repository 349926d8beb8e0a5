"""`provectl demo`, as the README begins with it."""

import pytest
import typer

from prove.commands import demo
from tests.support.december import december
from tests.support.stack import Stack

SHORT = ("demo", "--rate", "5/s", "--duration", "3s")


@pytest.mark.parametrize("real", [True, False])
def test_the_story_is_told_to_its_end(stack: Stack, real: bool) -> None:
    shared = str(december().parent.parent) if real else "/nonexistent"
    answer = stack.run(*SHORT, env={"PROVE_SHARED": shared})
    told = answer.stdout
    # 1: on a busy machine a request of the load was late; it is told all the same.
    assert answer.returncode in (0, 1), answer.stderr
    assert "Traceback" not in answer.stderr
    for step in ("up --detach", "data import", "load --rate", "buy", "summary"):
        assert f"── provectl {step}" in told or f"── {step}" in told, told
    assert ("online-retail-2010-12.csv.gz" in told) == real
    for what in ("is confirmed", "checkout.charge", "exemplar", "orders", "P95 of order-service"):
        assert what in told, what


def test_a_step_that_does_not_hold_is_no_end_and_ctrl_c_is() -> None:
    def ended(code: int) -> None:
        raise typer.Exit(code)

    assert demo._exit_code(lambda: None) == 0
    assert demo._exit_code(lambda: ended(1)) == 1
    with pytest.raises(typer.Exit):
        demo._exit_code(lambda: ended(130))
