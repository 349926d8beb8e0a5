"""Finding and building, with a real `go` on a program of a few lines, in a cache of its own."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from prove.errors import UserError
from prove.tools import TOOLS, Binary, Program, builder, cache_dir, ensure, find, verify

DEADLINE_S = 240
GO = shutil.which("go")
HELLO = Program(
    name="hello",
    directory="tools/hello",
    version="1.2.3",
    stamp="main.version",
    binaries=(Binary("hello", "."),),
)


@dataclass
class Recorder:
    """A Progress that remembers."""

    phases: list[tuple[str, int | None]] = field(default_factory=list)
    steps: int = 0
    ends: int = 0

    def phase(self, program: str, text: str, total: int | None = None) -> None:
        self.phases.append((text, total))

    def advance(self, program: str) -> None:
        self.steps += 1

    def done(self, program: str, text: str) -> None:
        self.ends += 1


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose one tool is HELLO, different in every test, and an empty cache."""
    module = tmp_path / "checkout" / HELLO.directory
    module.mkdir(parents=True)
    (module / "go.mod").write_text("module prove/tools/hello\n\ngo 1.25\n")
    (module / "main.go").write_text(
        textwrap.dedent(f"""\
            package main

            var version = "none"

            const unique = "{secrets.token_hex(16)}"

            func main() {{ println("hello, version v" + version, unique) }}
            """)
    )
    monkeypatch.setattr(builder, "repository_root", lambda: tmp_path / "checkout")
    monkeypatch.setattr(verify, "repository_root", lambda: tmp_path / "checkout")
    monkeypatch.setitem(TOOLS, "hello", HELLO)
    monkeypatch.setenv("PROVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "checkout"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH, empty."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def script(file: Path, body: str) -> None:
    """An executable in place of another."""
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def counted_go(path: Path) -> Callable[[], int]:
    """Put the real `go` on PATH; the answer counts its builds."""
    calls = path.parent / "go-calls"
    calls.touch()
    script(path / "go", f'echo "$1" >> {calls}\nexec {GO} "$@"')
    return lambda: calls.read_text().split().count("build")


def eventually(what: str, ask: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not ask():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)


def test_a_tool_is_built_once_and_then_found_without_go(
    checkout: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = counted_go(path)
    recorder = Recorder()

    binary = ensure("hello", progress=recorder)["hello"]

    output = subprocess.run([binary], capture_output=True, text=True, check=True).stderr
    assert "hello, version v1.2.3" in output
    assert builds() == 1
    assert recorder.ends == 1
    # The bar is truthful: the main package at least had to be compiled, and all were counted.
    assert recorder.phases[-1][1] == recorder.steps >= 1

    (path / "go").unlink()
    assert ensure("hello", progress=recorder)["hello"] == binary
    assert recorder.ends == 1


def test_many_at_once_build_once(checkout: Path, path: Path) -> None:
    builds = counted_go(path)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ensure("hello")["hello"], range(4)))

    assert builds() == 1
    assert len(set(answers)) == 1


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("main.go", True),
        ("go.sum", True),
        ("internal/store/0001_orders.sql", True),
        ("main_test.go", False),
        ("order.db", False),
        ("README.md", False),
    ],
)
def test_an_entry_follows_what_goes_into_the_build(checkout: Path, file: str, counts: bool) -> None:
    before = builder.entry_dir(HELLO)
    changed = checkout / HELLO.directory / file
    changed.parent.mkdir(parents=True, exist_ok=True)
    with changed.open("a") as out:
        out.write("// changed\n")

    assert (builder.entry_dir(HELLO) != before) is counts


def test_an_entry_follows_the_flags(checkout: Path) -> None:
    assert builder.build_hash(HELLO) != builder.build_hash(replace(HELLO, tags=("other",)))


def test_unused_entries_go_and_the_latest_stay(checkout: Path) -> None:
    program = checkout / HELLO.directory / "main.go"
    first = ensure("hello")["hello"]
    os.utime(first.parent, (1, 1))
    for number in range(builder.KEPT_ENTRIES + 1):  # all of them just used
        stale = first.parent.with_name(f"1.2.{number}-old")
        stale.mkdir()
    program.write_text(program.read_text() + "\n// changed\n")

    second = ensure("hello")["hello"]

    assert second.is_file()
    assert not first.exists()
    assert len([one for one in first.parents[1].iterdir() if one.is_dir()]) == (
        builder.KEPT_ENTRIES + 2
    )


def test_without_go_one_sentence_says_what_to_do(checkout: Path, path: Path) -> None:
    with pytest.raises(UserError, match=r"hello is built with Go 1\.25 or newer .*install it"):
        ensure("hello")


@pytest.mark.parametrize(
    ("version", "toolchain"), [("go1.24.9", "local"), ("go1.19.8", ""), ("go1.20.1", "auto")]
)
def test_with_an_old_go_one_sentence_says_what_to_do(
    checkout: Path, path: Path, version: str, toolchain: str
) -> None:
    script(path / "go", f"echo {version}; echo {toolchain}")

    with pytest.raises(UserError, match=rf"Go 1\.25 or newer and .* is {version[2:]}: install"):
        ensure("hello")


def test_an_old_go_that_may_fetch_a_newer_one_will_do(checkout: Path, path: Path) -> None:
    script(path / "go", "echo go1.22.1; echo auto")

    assert builder.check_go(HELLO) == path / "go"


def test_a_failed_build_leaves_its_log_and_nothing_else(checkout: Path) -> None:
    (checkout / HELLO.directory / "main.go").write_text("package main\n\nfunc main() { nope() }\n")

    with pytest.raises(UserError) as caught:
        ensure("hello")

    log = cache_dir() / "tools" / "hello" / "build.log"
    assert str(caught.value).startswith("building hello failed: ")
    assert str(log) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "undefined: nope" in log.read_text()
    assert sorted(one.name for one in log.parent.iterdir()) == [".lock", "build.log"]


def test_a_cache_that_cannot_be_written_is_named(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PROVE_CACHE", str(tmp_path / "file"))

    with pytest.raises(UserError, match=r"cannot write to .*/file .*PROVE_CACHE"):
        ensure("hello")


@pytest.mark.parametrize("when", ["while go is being started", "later"])
def test_ctrl_c_ends_go_and_leaves_nothing(tmp_path: Path, path: Path, when: str) -> None:
    pid_file = tmp_path / "go-pid"
    # A compiler below `go`, as in a real build.
    script(
        path / "go",
        f'[ "$1" = env ] && echo go1.99.0 && exit\n/bin/sleep 300 &\n'
        f"echo $! > {pid_file}.new && /bin/mv {pid_file}.new {pid_file}\nwait",
    )
    cache = tmp_path / "cache"
    main = textwrap.dedent(f"""\
        import pathlib, signal, subprocess, time
        from prove.tools import ensure

        class Slow(subprocess.Popen):
            def __init__(self, argv, **options):
                super().__init__(argv, **options)
                if argv[1] != "env":
                    while not pathlib.Path({str(pid_file)!r}).exists():
                        time.sleep(0.01)
                    signal.raise_signal(signal.SIGINT)

        # A test run in the background has it ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if {when == "while go is being started"}:
            subprocess.Popen = Slow
        ensure("k6")
        """)
    process = subprocess.Popen(
        [sys.executable, "-c", main],
        env=os.environ | {"PROVE_CACHE": str(cache)},
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually("go runs", pid_file.exists)
        compiler = int(pid_file.read_text())

        if when == "later":
            process.send_signal(signal.SIGINT)

        assert process.wait(DEADLINE_S) != 0
        eventually("its children are gone", lambda: not alive(compiler))
        assert not list((cache / "tools" / "k6").glob(".build-*"))
    finally:
        process.kill()
        process.wait()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_stale_build_of_a_killed_process_is_swept_away(checkout: Path) -> None:
    stale = cache_dir() / "tools" / "hello" / ".build-dead"
    stale.mkdir(parents=True)

    ensure("hello")

    assert not stale.exists()


def fake_prometheus(path: Path, version: str) -> None:
    for name in ("prometheus", "promtool"):
        script(path / name, f'echo "{name}, version {version} (branch: HEAD)"')


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVE_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("empty_cache")
def test_fitting_binaries_on_path_are_used_instead(path: Path) -> None:
    fake_prometheus(path, "3.17.2")

    found = find(TOOLS["prometheus"])

    assert found is not None
    assert found.source == "PATH"
    assert ensure("prometheus") == {
        "prometheus": path / "prometheus",
        "promtool": path / "promtool",
    }


@pytest.mark.usefixtures("empty_cache")
def test_old_incomplete_or_broken_binaries_on_path_are_not_used(path: Path) -> None:
    fake_prometheus(path, "2.55.1")
    assert find(TOOLS["prometheus"]) is None

    fake_prometheus(path, "3.16.0")
    (path / "promtool").unlink()
    assert find(TOOLS["prometheus"]) is None

    script(path / "promtool", "exit 1")
    assert find(TOOLS["prometheus"]) is None


@pytest.mark.usefixtures("empty_cache")
def test_a_collector_on_path_must_have_every_component(path: Path) -> None:
    def collector(components: frozenset[str]) -> None:
        listing = "\n".join(f"    - name: {one}" for one in sorted(components))
        script(
            path / "otelcol-contrib",
            f'[ "$1" = components ] && echo "receivers:\n{listing}" && exit\n'
            "echo otelcol-contrib version 0.156.0",
        )

    needed = TOOLS["otelcol"].components
    collector(needed - {"redaction"})
    assert find(TOOLS["otelcol"]) is None

    collector(needed | {"zipkin"})
    assert ensure("otelcol") == {"otelcol-prove": path / "otelcol-contrib"}


def test_verify_tells_a_binary_of_another_version(checkout: Path) -> None:
    (checkout / HELLO.directory / "go.sum").touch()
    assert verify.problems(HELLO) == ["not built yet: run `provectl tools build hello`"]

    binary = ensure("hello")["hello"]
    assert verify.problems(HELLO) == []

    binary.unlink()
    script(binary, "echo hello, version v1.2.2")
    assert verify.problems(HELLO) == [
        f"{binary} says version 1.2.2, pinned is 1.2.3",
        f"{binary} holds no record of its modules",
    ]


def test_an_unknown_tool_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"no tool 'grafana'; there are otelcol, prometheus"):
        ensure("grafana")
