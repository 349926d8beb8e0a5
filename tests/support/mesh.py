"""A small mesh of real Envoys, with certificates of its own, before upstreams that tell all."""

import json
import shutil
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from service_kit.ports import claim
from service_kit.testing import status_of, wait_until

from prove.mesh import certificates, edges, envoy
from prove.mesh.certificates import Authority
from prove.mesh.edges import Mesh
from prove.mesh.envoy import Address, Inbound, Outbound, Proxy
from prove.stack import mesh as stack_mesh

HOST = "127.0.0.1"
A_DAY = timedelta(days=1)


@dataclass
class Upstream:
    """A service that answers `status` to everything, and keeps what it was asked."""

    status: int = 200
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    port: int = 0
    hold: threading.Event | None = None
    """It answers once this is set."""

    @contextmanager
    def serving(self) -> Iterator["Upstream"]:
        """On a free port."""
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                upstream.asked.append((self.command, self.path, headers))
                if upstream.hold:
                    upstream.hold.wait(60)
                self.send_response(upstream.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
                """Nowhere."""

        self.port = claim()[0]
        server = ThreadingHTTPServer((HOST, self.port), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            if self.hold:
                self.hold.set()
            server.shutdown()
            server.server_close()
            thread.join()


@dataclass
class SmallMesh:
    """Its proxies, and certificates that a test may change. `with small_mesh() as mesh`."""

    directory: Path
    stack: ExitStack
    table: Mesh = field(default_factory=edges.load)
    logs: dict[str, Path] = field(default_factory=dict)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.authority = Authority.at(self.directory / "ca")
        for workload in self.table.workloads:
            self.certify(workload)

    def certify(self, workload: str, until: timedelta = A_DAY) -> None:
        """Give it a new certificate."""
        pair = self.authority.issue(edges.identity(workload), datetime.now(UTC) + until)
        certificates.store(self.directory / workload, pair, self.authority.pem)

    def before(self, service: str, upstream: Upstream, name: str = "") -> Address:
        """A proxy before an upstream; returns its door."""
        door, ready = (Address(HOST, port) for port in claim(2))
        inbound = Inbound(service, door, Address(HOST, upstream.port))
        self._start(name or service, service, ready, inbound=(inbound,))
        return door

    def towards(
        self, caller: str, called: str, doors: Sequence[Address], **options: Any
    ) -> Address:
        """A proxy that carries what is sent to it along an edge; returns where to send it."""
        listen, ready = (Address(HOST, port) for port in claim(2))
        outbound = Outbound("test", listen, (caller,), called, **options)
        upstreams = {f"{caller}-{called}": doors}
        self._start(f"to-{called}", caller, ready, outbound=(outbound,), upstreams=upstreams)
        return listen

    def _start(
        self,
        name: str,
        workload: str,
        ready: Address,
        *,
        inbound: tuple[Inbound, ...] = (),
        outbound: tuple[Outbound, ...] = (),
        upstreams: Mapping[str, Sequence[Address]] | None = None,
    ) -> None:
        directory = self.directory / f"proxy-{name}"
        directory.mkdir()
        proxy = Proxy(
            name=name,
            upstreams=upstreams or {},
            certificates={workload: str(self.directory / workload)},
            ready=ready,
            otlp=Address(HOST, claim()[0]),  # nobody is there, and nothing depends on it
            admin_socket=f"proxy-{name}/admin.sock",
            inbound=inbound,
            outbound=outbound,
            sds_directory=str(directory),
            connection_age_s=1,
        )
        files = {"envoy.json": envoy.bootstrap(proxy, self.table), **envoy.secrets(proxy)}
        for file, content in files.items():
            (directory / file).write_text(json.dumps(content))
        log = directory / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                stack_mesh.arguments(stack_mesh.program(), directory / "envoy.json"),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.stack.callback(_end, process)
        self.logs[name], self.processes[name] = log, process
        url = f"http://{ready.host}:{ready.port}{envoy.READY}"

        def up() -> bool:
            assert process.poll() is None, log.read_text()
            return status_of(url) == 200

        wait_until(up, what=f"the proxy {name}")

    def stats(self, name: str) -> dict[str, float]:
        """Those of a proxy, by its admin interface, which is a socket of its owner's."""
        socket = self.directory / f"proxy-{name}" / "admin.sock"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
            text = client.get("http://admin/stats").text
        pairs = (line.rpartition(": ") for line in text.splitlines())
        return {key: float(value) for key, _, value in pairs if value.isdigit()}

    def client(self, workload: str | None, authority: Path | None = None) -> httpx.Client:
        """One that speaks mTLS as `workload`; with none it shows no certificate."""
        context = ssl.create_default_context(cafile=str(self.directory / "edge" / envoy.CA))
        context.check_hostname = False
        if workload:
            files = (authority or self.directory) / workload
            context.load_cert_chain(files / envoy.TLS_CERT, files / envoy.TLS_KEY)
        return httpx.Client(verify=context, trust_env=False, timeout=30)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def small_mesh(table: Mesh | None = None) -> Iterator[SmallMesh]:
    """An empty one; its directory is near the root, for a socket's path may not be long."""
    directory = Path(tempfile.mkdtemp(prefix="mesh-"))
    try:
        with ExitStack() as stack:
            yield SmallMesh(directory, stack, table or edges.load())
    finally:
        shutil.rmtree(directory, ignore_errors=True)
