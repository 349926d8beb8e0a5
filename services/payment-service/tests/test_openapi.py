"""The OpenAPI document against the running service, by schemathesis, with every check on."""

from pathlib import Path

import pytest
from payment_harness import TOKEN, run_payment
from service_kit import testing
from service_kit.testing import Running

CONFIG = Path(__file__).with_name("schemathesis.toml")
# The faults have ten types with limits at both ends: some hundred requests.
TIMEOUT_S = 1200


# Apart: a fault lease that the one run makes would hit what the other one does.
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("side", ["--include-path-regex", "--exclude-path-regex"])
def test_the_service_keeps_to_its_openapi(acquirer: Running, tmp_path: Path, side: str) -> None:
    with run_payment(tmp_path, acquirer) as service:
        token = f"Authorization: Bearer {TOKEN}"
        testing.schemathesis(
            service.url, CONFIG, tmp_path, "-H", token, side, "^/(faults|incidents)"
        )
