import pytest

from prove.bench import profile

REQUEST = (
    "process 1:x;_bootstrap (/l/threading.py);run (/l/threading.py);_worker (/l/thread.py);"
    "handle (/s/gunicorn/workers/gthread.py);wsgi_app (/s/flask/app.py);"
)
PACKAGES = "/s/opentelemetry"


@pytest.mark.parametrize(
    ("frames", "part"),
    [
        (REQUEST + "item (/r/product_service/routes.py)", "the service"),
        (
            REQUEST
            + f"before (/{PACKAGES}/instrumentation/flask/__init__.py);url (/s/werkzeug/wsgi.py)",
            "instrumentation of Flask and SQLAlchemy",
        ),
        (
            REQUEST + f"before ({PACKAGES}/instrumentation/flask/__init__.py)"
            ";set_attribute (/r/service_kit/spans.py)",
            "record spans",
        ),
        (REQUEST + f"record ({PACKAGES}/sdk/metrics/_internal/instrument.py)", "record durations"),
        (REQUEST + "info (/s/structlog/_native.py);dumps (/l/json/encoder.py)", "access log"),
        (
            "process 1:x;_bootstrap (/l/threading.py);run (/l/threading.py);"
            f"worker ({PACKAGES}/sdk/_shared_internal/__init__.py);send (/l/http/client.py)",
            profile.EXPORT,
        ),
    ],
)
def test_a_sample_belongs_to_what_its_innermost_telling_frame_is_of(frames: str, part: str) -> None:
    assert profile.part(frames) == part


def test_shares_are_of_all_samples() -> None:
    told = profile.shares([f"{REQUEST}item (/r/product_service/routes.py) 3", "a;dumps (/x.py) 1"])
    assert told["the service"] == 1
    assert sum(told.values()) == 1
