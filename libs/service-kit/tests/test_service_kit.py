"""The parts that need no service around them."""

import io
import json
import logging
import random
import re
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from hypothesis import given
from hypothesis import strategies as st
from service_kit import deadline, lifecycle, logs, problem, settings, telemetry, testing
from service_kit.auth import require_admin
from service_kit.database import Database, _sqlite_turn, check_migrated, migrate
from service_kit.faultmodel import Lease, any_fault
from service_kit.faults import Active, Effect, LeaseStore, decide
from service_kit.health import Health
from service_kit.problem import Problem
from sqlalchemy.exc import IntegrityError, OperationalError

# -- settings


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(" from-file \n")
    for name, value in {
        "PORT": "9999",
        "LOG_LEVEL": "WARNING",
        "MIGRATE_ON_START": "false",
        "ADMIN_TOKEN": "from-env",
        "DATABASE_URL": f"sqlite:///{tmp_path}/x.db",
        "HOST": "",
        "UNKNOWN": "ignored",
    }.items():
        monkeypatch.setenv(name, value)
    loaded = settings.load(settings.ServiceSettings, "x-service")
    assert (loaded.port, loaded.log_level, loaded.host) == (9999, "warning", "127.0.0.1")
    assert not loaded.migrate_on_start
    assert loaded.token == "from-env"
    assert loaded.faults_path("x-service") == tmp_path / "faults-x-service.json"
    assert "from-env" not in repr(loaded)
    monkeypatch.setenv("ADMIN_TOKEN_FILE", str(token))
    assert settings.load(settings.ServiceSettings, "x-service").token == "from-file"


def test_postgresql_uses_the_driver_we_ship(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@h:5432/d")
    assert settings.ServiceSettings().url.drivername == "postgresql+psycopg"
    assert settings.ServiceSettings().faults_path("x").name == "faults-x.json"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PORT", "0", "x: PORT: Input should be greater than or equal to 1 (got '0')"),
        ("DATABASE_URL", "sqlite://", "x: DATABASE_URL: name a file"),
        ("DATABASE_URL", "not a url", "x: DATABASE_URL: use sqlite:///FILE"),
        ("ADMIN_TOKEN_FILE", "/", "x: ADMIN_TOKEN_FILE: cannot be read: Is a directory"),
        ("SHUTDOWN_DELAY_S", "20", "x: SHUTDOWN_DELAY_S must be less than SHUTDOWN_GRACE_S"),
    ],
)
def test_a_bad_setting_ends_it_with_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        settings.load(settings.ServiceSettings, "x")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(said)


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "token"
    empty.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        settings.read_token(empty)


# -- logs


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Set logging up for this test; the function returns the parsed lines."""
    out = io.BytesIO()

    class Stdout:
        buffer = out

    root = logging.getLogger()
    before = (root.handlers, root.level)
    monkeypatch.setattr(sys, "stdout", Stdout())
    logs.setup("x-service", "info")
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers, root.level = before


def test_one_format_for_all_loggers(lines: Any) -> None:
    logs.request_id.set("r-1")
    logs.get_logger("ours").info("hello", answer=42, odd=object, nan=float("nan"), bad="\ud800")
    logging.getLogger("theirs").warning("hello %s", "you")
    logging.getLogger("theirs").info("not this")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("theirs").exception("broken")
    logs.request_id.set(None)
    first, second, third = lines()
    assert (first["event"], first["logger"], first["answer"]) == ("hello", "ours", 42)
    assert (second["event"], second["logger"], second["level"]) == (
        "hello you",
        "theirs",
        "warning",
    )
    assert "ZeroDivisionError" in third["exception"]
    for line in (first, second, third):
        assert line["service"] == "x-service"
        assert line["request_id"] == "r-1"
        assert line["trace_id"] is None
        assert line["ts"].endswith("Z")
        assert len(line["ts"]) == len("2026-01-02T03:04:05.678901Z")


def test_no_card_number_is_in_a_line(lines: Any) -> None:
    order_id = "01a20b84-8953-766d-8c75-7ac578dc0a9c"
    logs.request_id.set(logs.accept_request_id("4111111111111111"))
    logs.get_logger("ours").info(
        "paid by 5500 0000 0000 0004",
        order_id=order_id,
        errors=[{"loc": ["body"], "msg": "got 378282246310005"}],
        since_ns=1764000000000000000,
    )
    logging.getLogger("theirs").warning("no %s here", "4111-1111-1111-1111")
    logs.request_id.set(None)
    first, second = lines()
    assert first["event"] == "paid by ****"
    assert re.fullmatch("[0-9a-f]{32}", first["request_id"])
    assert first["errors"] == [{"loc": ["body"], "msg": "got ****"}]
    assert (first["order_id"], first["since_ns"]) == (order_id, 1764000000000000000)
    assert second["event"] == "no **** here"


def test_sinks_get_every_record(lines: Any) -> None:
    seen: list[str] = []

    def sink(event: logs.Event) -> None:
        seen.append(event["event"])

    logs.add_sink(sink)
    logging.getLogger("theirs").error("once")
    logs.remove_sink(sink)
    logging.getLogger("theirs").error("twice")
    assert seen == ["once"]
    assert [line["event"] for line in lines()] == ["once", "twice"]


@given(st.text())
def test_request_ids(given_id: str) -> None:
    accepted = logs.accept_request_id(given_id)
    assert accepted == given_id or len(accepted) == 32
    assert accepted.isascii()
    assert 1 <= len(accepted) <= 128


# -- problems, auth, deadline, health


def test_statuses_become_problems() -> None:
    assert problem.from_status(405, headers={"Allow": "GET"}).headers == {"Allow": "GET"}
    assert problem.from_status(404).slug == "not-found"
    assert problem.from_status(502).slug == "internal"
    body = Problem(409, "stock-short", "Short.", sku="A").as_dict("/x")
    assert (body["type"], body["title"], body["sku"]) == (
        "/problems/stock-short",
        "Stock short",
        "A",
    )


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic secret", "secret"])
def test_the_admin_token(header: str | None) -> None:
    with pytest.raises(Problem) as refused:
        require_admin(header, "secret")
    assert refused.value.status == 401
    with pytest.raises(Problem) as hidden:
        require_admin(header, None)
    assert hidden.value.status == 404
    require_admin("Bearer secret", "secret")
    require_admin("bearer secret", "secret")


def test_the_deadline() -> None:
    deadline.start("60000")
    assert 0 < deadline.remaining_s(100) <= 60
    assert deadline.remaining_s(5) == 5
    deadline.check()
    deadline.start("0")
    assert deadline.remaining_s(5) == 0
    with pytest.raises(Problem):
        deadline.check()
    for junk in (None, "", "-1", "1.5", "²"):
        deadline.start(junk)
        assert deadline.remaining_s(5) == 5


def test_peers_never_fail_readiness() -> None:
    def down() -> None:
        raise ConnectionError("no answer\nand more")

    health = Health({"database": lambda: None}, {"payment": down})
    assert health.readyz()[0] == 503
    health.started = True
    status, body = health.answer("/readyz")
    assert (status, body["peers"]) == (200, {"payment": "no answer"})
    failing = Health({"database": down})
    failing.started = True
    assert failing.readyz() == (
        503,
        {"status": "unavailable", "checks": {"database": "no answer"}, "peers": {}},
    )
    assert failing.livez()[0] == 200


# -- fault leases

ERROR = {"type": "error", "params": {"rate": 1}, "ttl_s": 10}


def active(fault: dict[str, Any], seed: int = 0) -> Active:
    lease = Lease("x", any_fault.validate_python({"ttl_s": 10, **fault}), 0, 10_000)
    return Active(lease, random.Random(seed))


@pytest.mark.parametrize(
    ("match", "method", "route", "hit"),
    [
        ({}, "GET", "/a", True),
        ({"method": "GET"}, "GET", "/a", True),
        ({"method": "GET"}, "POST", "/a", False),
        ({"route": "/a/{id}"}, "GET", "/a/{id}", True),
        ({"route": "/a/{id}"}, "GET", "/a", False),
    ],
)
def test_a_fault_hits_what_it_matches(
    match: dict[str, str], method: str, route: str, hit: bool
) -> None:
    fault = active({**ERROR, "match": match})
    effects = decide([fault], method, route, now_ms=5_000)
    assert effects == ([Effect(fault.lease)] if hit else [])
    assert decide([fault], method, route, now_ms=10_000) == []


@given(
    params=st.one_of(
        st.fixed_dictionaries(
            {"distribution": st.just("constant"), "delay_ms": st.floats(0, 30_000)}
        ),
        st.fixed_dictionaries(
            {
                "distribution": st.just("normal"),
                "mean_ms": st.floats(0, 30_000),
                "stddev_ms": st.floats(0, 30_000),
            }
        ),
        st.fixed_dictionaries(
            {
                "distribution": st.just("pareto"),
                "scale_ms": st.floats(0, 30_000, exclude_min=True),
                "shape": st.floats(0, 100, exclude_min=True),
            }
        ),
    ),
    seed=st.integers(),
)
def test_delays_are_bounded_and_repeatable(params: dict[str, Any], seed: int) -> None:
    fault = {"type": "latency", "params": {**params, "seed": seed}}

    def draw() -> list[Effect]:
        one = active(fault, seed)
        return [effect for _ in range(20) for effect in decide([one], "GET", "/", 0)]

    delays = [effect.delay_s for effect in draw()]
    assert all(0 <= delay <= 30 for delay in delays)
    assert draw() == draw()
    if params["distribution"] == "constant":
        assert set(delays) == {params["delay_ms"] / 1000}


def test_an_error_rate_is_kept() -> None:
    fault = active({"type": "error", "params": {"rate": 0.2}}, seed=1)
    hits = sum(len(decide([fault], "GET", "/", 0)) for _ in range(2000))
    assert 320 < hits < 480


@pytest.mark.parametrize("rate", [1, 0.5, 0.2, 0.29, 0.7, 0.001])
@pytest.mark.parametrize("kind", ["error", "latency"])
def test_a_rate_by_count_is_kept_exactly(kind: str, rate: float) -> None:
    of_kind = {"distribution": "constant", "delay_ms": 600} if kind == "latency" else {}
    params = {"rate": rate, "select": "count", **of_kind}
    fault = active({"type": kind, "params": params, "match": {"route": "/a"}})
    hits = 0
    for number in range(1, 2001):
        assert decide([fault], "GET", "/b", 0) == []  # does not count
        hits += len(decide([fault], "GET", "/a", 0))
        assert hits == int(number * Fraction(str(rate)))


def test_a_rate_by_count_is_kept_by_threads() -> None:
    fault = active({"type": "error", "params": {"rate": 0.2, "select": "count"}})
    with ThreadPoolExecutor(8) as pool:
        hits = pool.map(lambda _: len(decide([fault], "GET", "/", 0)), range(5000))
        assert sum(hits) == 1000


def test_a_share_of_requests_is_delayed() -> None:
    params = {"distribution": "constant", "delay_ms": 600, "rate": 0.2}
    fault = active({"type": "latency", "params": params}, seed=1)
    hits = sum(len(decide([fault], "GET", "/", 0)) for _ in range(2000))
    assert 320 < hits < 480


def test_leases_are_shared_expire_and_can_be_revoked(tmp_path: Path) -> None:
    now = [1_000_000.0]
    path = tmp_path / "faults.json"
    writer, reader = (LeaseStore(path, clock_ms=lambda: now[0]) for _ in range(2))
    assert reader.decide("GET", "/") == []
    lease = writer.put("x", any_fault.validate_python(ERROR))
    assert (lease.created_at_unix_ms, lease.expires_at_unix_ms) == (1_000_000, 1_010_000)
    assert lease.as_dict()["expires_at"] == "1970-01-01T00:16:50.000Z"
    assert reader.items() == [lease]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = json.loads(path.read_text())
    assert document["version"] == 1
    assert document["leases"]["x"]["expires_at_unix_ms"] == 1_010_000
    assert testing.wait_until(lambda: reader.decide("GET", "/"))
    now[0] += 10_000
    assert (reader.decide("GET", "/"), reader.items()) == ([], [])
    writer.put("y", any_fault.validate_python(ERROR))
    assert list(json.loads(path.read_text())["leases"]) == ["y"]
    writer.delete("y")
    writer.delete("y")
    assert reader.items() == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 1, "leases": {"x": 1}}',
        '{"version": 1, "leases": {"x": {"type": "error", "params": {"rate": 7}}}}',
        "\udcff",
    ],
)
def test_a_corrupt_file_means_no_faults(tmp_path: Path, content: str) -> None:
    path = tmp_path / "faults.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    store = LeaseStore(path)
    assert store.items() == []
    assert store.decide("GET", "/") == []
    store.put("x", any_fault.validate_python(ERROR))
    assert [lease.name for lease in store.items()] == ["x"]


def test_a_file_that_cannot_be_looked_at_means_no_faults(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert LeaseStore(tmp_path / "file" / "faults.json").decide("GET", "/") == []


def test_many_writers_lose_no_lease(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    fault = any_fault.validate_python(ERROR)
    threads = [
        threading.Thread(target=LeaseStore(path).put, args=(f"f{number}", fault))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(LeaseStore(path).items()) == 20


def test_a_directory_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    store = LeaseStore(tmp_path / "missing" / "faults.json")
    with pytest.raises(Problem) as refused:
        store.put("x", any_fault.validate_python(ERROR))
    assert refused.value.status == 503


# -- lifecycle, database, telemetry


def test_a_busy_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(lifecycle.StartupError, match=f"127.0.0.1:{port} is already in use"):
            lifecycle.listen("127.0.0.1", port)
    with pytest.raises(lifecycle.StartupError, match="is not an address"):
        lifecycle.listen("no.such.host.invalid", port)
    with lifecycle.listen("127.0.0.1", port) as sock:
        assert sock.getsockname()[1] == port


def test_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise lifecycle.StartupError("do this")

    ran: list[str] = []
    commands = {"serve": lambda: ran.append("serve"), "migrate": fail}
    monkeypatch.setattr(sys, "argv", ["x"])
    lifecycle.run("x", commands)
    assert ran == ["serve"]
    monkeypatch.setattr(sys, "argv", ["x", "migrate"])
    with pytest.raises(SystemExit) as ended:
        lifecycle.run("x", commands)
    assert (ended.value.code, capsys.readouterr().err) == (2, "x: do this\n")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(sa.make_url(f"sqlite:///{tmp_path}/x.db"))
    with database.write() as connection:
        connection.execute(sa.text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    yield database
    database.close()


def test_sqlite_is_set_up_as_promised(database: Database) -> None:
    with database.read() as connection:
        pragmas = {
            name: connection.execute(sa.text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 1,
        "busy_timeout": 5000,
        "foreign_keys": 1,
    }


def test_a_write_is_all_or_nothing(database: Database) -> None:
    def insert_twice() -> None:
        with database.write() as connection:
            connection.execute(sa.text("INSERT INTO t VALUES (1)"))
            connection.execute(sa.text("INSERT INTO t VALUES (1)"))

    with pytest.raises(IntegrityError):
        insert_twice()
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM t")).scalar() == 0
    with database.write() as connection:
        connection.execute(sa.text("INSERT INTO t VALUES (1)"))
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM t")).scalar() == 1


def test_threads_write_in_turn(database: Database) -> None:
    """Each waits for the lock of ours, so that SQLite's polling never begins."""
    polled: list[str] = []

    def write(n: int) -> None:
        with database.write() as connection:
            connection.execute(sa.text("INSERT INTO t VALUES (:n)"), {"n": n})

    @sa.event.listens_for(database.engine, "connect")
    def give_up_at_once(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout = 0")

    database.engine.dispose()
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(write, n) for n in range(400)]:
            if error := done.exception():
                polled.append(str(error))
    assert polled == []


def test_a_writer_that_does_not_get_its_turn_is_told_as_sqlite_tells_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_turn", _sqlite_turn(threading.Lock(), timeout_s=0.01))
    with database.write(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: database.write().__enter__())
        assert isinstance(waiting.exception(), OperationalError)
        assert "locked" in str(waiting.exception())


def test_a_reader_is_not_held_up_by_a_writer(database: Database) -> None:
    with database.write() as writing:
        writing.execute(sa.text("INSERT INTO t VALUES (1)"))
        with database.read() as reading:
            assert reading.execute(sa.text("SELECT count(*) FROM t")).scalar() == 0


def test_the_writers_of_two_processes_wait_for_each_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service_kit.database.BUSY_TIMEOUT_S", 0.05)
    other = Database(database.url)
    with database.write(), pytest.raises(OperationalError, match="locked"), other.write():
        pass
    with other.write() as connection:
        connection.execute(sa.text("INSERT INTO t VALUES (1)"))
    other.close()


def test_the_schema_is_compared_with_the_newest_revision_that_was_read_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    migrations = tmp_path / "kit_sample" / "migrations"
    (migrations / "versions").mkdir(parents=True)
    for package in (migrations.parent, migrations, migrations / "versions"):
        (package / "__init__.py").touch()
    (migrations / "env.py").write_text("from alembic import context\ncontext.run_migrations()\n")
    (migrations / "versions" / "0001.py").write_text(
        "revision = '0001'\ndown_revision = None\ndef upgrade(): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeError, match="schema is at nothing: run the migrate command"):
        check_migrated(database, "kit_sample")
    migrate(database, "kit_sample")
    check_migrated(database, "kit_sample")
    (migrations / "versions").rename(tmp_path / "away")  # the directory is not asked again …
    check_migrated(database, "kit_sample")
    with database.write() as connection:  # … the database is
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(RuntimeError, match=r"schema is at \['0000'\]"):
        check_migrated(database, "kit_sample")
    with database.write() as connection:  # by a version that comes, or was rolled back from
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0002'"))
    check_migrated(database, "kit_sample")
    migrate(database, "kit_sample")
    with database.read() as connection:
        assert (
            connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()
            == "0002"
        )


def test_telemetry_can_be_disabled(monkeypatch: pytest.MonkeyPatch, database: Database) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    off = telemetry.setup("x", "1")
    assert not off.enabled
    off.instrument(database.engine)
    off.shutdown(0)
