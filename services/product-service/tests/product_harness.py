"""What tests of the real processes share: requests as an admin, over a connection of their own."""

import http.client
import json
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from service_kit.testing import PATIENT_S, wait_until


def request(
    url: str, path: str, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, Any]:
    """A status and a body. Raises OSError or HTTPException when the connection is lost."""
    sent = {"Authorization": "Bearer test-token", "Content-Type": "application/json", **headers}
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENT_S)) as connection:
        connection.request(method, path, json.dumps(body) if body is not None else None, sent)
        response = connection.getresponse()
        content = response.read()
    return response.status, json.loads(content) if content else None


def done(
    url: str, path: str, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, Any]:
    """The same, asked again while the service says that it is busy and has begun nothing."""

    def answered() -> tuple[int, Any] | None:
        answer = request(url, path, method, body, **headers)
        return None if answer[0] == 503 else answer

    return wait_until(answered, what=f"{method} {path}")
