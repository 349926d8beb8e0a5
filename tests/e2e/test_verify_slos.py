"""Real faults page at a real pager. When exactly is judged by `make prove`, on a quiet machine."""

import signal
from pathlib import Path

import pytest
from service_kit.testing import wait_until

from prove.verify import slos
from prove.verify.cells import ONE_OF_EACH_KIND
from tests.support.verify import TIMEOUT_S, left, verdict, verify

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def test_each_kind_of_sli_pages_and_nothing_else_does(tmp_path: Path) -> None:
    document = verdict(tmp_path, "slos", "--soak", "3m")

    figures = document["figures"]
    told = [each for each in document["violations"] if each["kind"] not in ("early", "late")]
    assert not told, document
    assert [each["cell"] for each in figures["cells"]] == list(ONE_OF_EACH_KIND)
    assert figures["off"]["count"] == len(ONE_OF_EACH_KIND)
    assert figures["soaked_s"] >= 180
    assert figures["false_pages"] == 0
    assert not left(tmp_path)


def test_an_interrupted_run_leaves_nothing_behind_but_what_is_done(tmp_path: Path) -> None:
    home = tmp_path / "kept"
    with verify(tmp_path, "slos", "--resume", str(home)) as run:
        pager = home / "stack" / "logs" / "canary.log"
        wait_until(pager.exists, what="a stack that starts", timeout_s=400)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=TIMEOUT_S)

    assert run.returncode == 130, out + err
    assert "the same command goes on" in err
    assert not left(tmp_path)
    kept = slos.Kept.model_validate_json((home / slos.PROGRESS).read_bytes())
    assert kept == slos.Kept(fingerprint=slos.fingerprint(slos.objectives()))
