"""What the observability servers of a stack are told: their files, in its home.

The files in `observability/` name the default addresses, so each is valid as it stands. A stack
gets copies with its own addresses, its profile's pace and its operator's receivers.
"""

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict

from prove.errors import UserError
from prove.slo import rules, spec, windows, yamltext
from prove.stack.settings import GRAFANA_PORT, PREFIX, StackSettings, default_ports

PROMETHEUS = "prometheus.yml"
ALERTMANAGER = "alertmanager.yml"
BLACKBOX = "blackbox.yml"

CAUSES = "causes.rules.yaml"
"""Rules written by hand; all others are made from SLOs."""
RULES = ".rules.yaml"
DRILL_WINDOWS = Path("slos") / "windows" / "drill.yaml"
_TEMPLATE = "prove.tmpl"
_ALERTS = "alerts"
_ADDRESS = re.compile(r"\b127\.0\.0\.1:(\d+)\b")

_EVERY_SECOND = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
_SOON = {"group_wait": "1s", "group_interval": "200ms", "repeat_interval": "1h"}
_AT_ONCE = {"group_wait": "0s"}
_ON_CALL = "on-call"


class _Receiver(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str


class _Receivers(BaseModel):
    model_config = ConfigDict(extra="forbid")

    receivers: list[_Receiver]


def write(settings: StackSettings, source: Path) -> None:
    """Write all files into `settings.config_dir`, in place of those of the last start.

    `source` is the repository's `observability/`. Raises UserError when the operator's receivers
    are not to be had or wrong.
    """
    files = render(settings, source)
    shutil.rmtree(settings.config_dir, ignore_errors=True)
    for name, text in files.items():
        path = settings.config_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # a webhook's address may be a secret
        path.write_text(text, encoding="utf-8")


def render(settings: StackSettings, source: Path) -> dict[str, str]:
    """The text of every file by its name below `settings.config_dir`; raises UserError."""
    alertmanager = source / "alertmanager"
    files = {
        PROMETHEUS: _prometheus(settings, source / "prometheus" / PROMETHEUS),
        ALERTMANAGER: _alertmanager(settings, alertmanager / ALERTMANAGER),
        _TEMPLATE: (alertmanager / _TEMPLATE).read_text(encoding="utf-8"),
        BLACKBOX: (source / "blackbox" / BLACKBOX).read_text(encoding="utf-8"),
    }
    for name, text in _rules(settings, source).items():
        files[f"{_ALERTS}/{name}"] = text
    return files


def _prometheus(settings: StackSettings, source: Path) -> str:
    config = yaml.safe_load(_moved(source.read_text(encoding="utf-8"), settings))
    config["rule_files"] = [f"{_ALERTS}/*{RULES}"]
    if settings.profile == "drill":
        config["global"] |= _EVERY_SECOND
    return yamltext.dump(config)


def _alertmanager(settings: StackSettings, source: Path) -> str:
    config = yaml.safe_load(source.read_text(encoding="utf-8"))
    if settings.profile == "drill":
        config["route"] |= _SOON
        for route in config["route"]["routes"]:
            if route["receiver"] == _ON_CALL:
                route |= _AT_ONCE
    own = _own_receivers(settings, [each["name"] for each in config["receivers"]])
    config["receivers"] = [own.get(each["name"], each) for each in config["receivers"]]
    webhooks: list[dict[str, Any]] = []
    if url := _webhook_url(settings):
        webhooks.append({"url": url})
    if settings.profile == "drill":
        webhooks.append(_inbox(settings))
    for receiver in config["receivers"] if webhooks else ():
        receiver["webhook_configs"] = [*receiver.get("webhook_configs", ()), *webhooks]
    return yamltext.dump(config)


def _rules(settings: StackSettings, source: Path) -> dict[str, str]:
    """Rule files by name: those of the repository, or made anew with the windows of the drill."""
    written = {
        file.name: _moved(file.read_text(encoding="utf-8"), settings)
        for file in sorted((source / _ALERTS).glob(f"*{RULES}"))
    }
    if settings.profile == "standard":
        return written
    file = source / DRILL_WINDOWS
    drill = windows.parse(file.read_text(encoding="utf-8"), str(file))
    made = {CAUSES: written[CAUSES]}
    for file in sorted((source / "slos").glob("*.yaml")):
        slos = spec.parse(_moved(file.read_text(encoding="utf-8"), settings), str(file))
        made[f"{file.stem}{RULES}"] = rules.build(
            slos,
            drill,
            source=file.name,
            windows_source=f"the windows of {DRILL_WINDOWS.name}",
            links=_links(settings),
        )
    return made


def _links(settings: StackSettings) -> rules.Links:
    default = rules.Links()
    return rules.Links(
        runbook=settings.runbooks_url or default.runbook,
        dashboard=settings.dashboard_url or _moved(default.dashboard, settings),
    )


def _moved(text: str, settings: StackSettings) -> str:
    """The text with the addresses of this stack in place of the default ones."""
    moves = {default: settings.ports[name] for name, default in default_ports().items()}
    moves[GRAFANA_PORT] = settings.grafana_port

    def move(found: re.Match[str]) -> str:
        port = int(found[1])
        return f"127.0.0.1:{moves.get(port, port)}"

    return _ADDRESS.sub(move, text)


def _own_receivers(settings: StackSettings, known: list[str]) -> dict[str, dict[str, Any]]:
    """The operator's receivers by name, the files of their secrets found."""
    if not settings.alert_receivers_file:
        return {}
    path = Path(settings.alert_receivers_file).expanduser().resolve()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(f"{PREFIX}ALERT_RECEIVERS_FILE: {path} can't be read: {why}") from None
    documents = yamltext.documents(text, str(path))
    if len(documents) != 1:
        raise UserError(f"{path}: must hold one document with receivers (found {len(documents)})")
    for index, receiver in enumerate(documents[0].validate(_Receivers).receivers):
        if receiver.name not in known:
            problem = f"nobody is called {receiver.name!r}; alerts go to {', '.join(known)}"
            raise documents[0].error(("receivers", index, "name"), problem)
    content = yaml.safe_load(text)
    _find_secrets(content, path)
    return {receiver["name"]: receiver for receiver in content["receivers"]}


def _find_secrets(value: object, path: Path) -> None:
    """Make the path of each `…_file` absolute; raises UserError for one that isn't there.

    Alertmanager would take them from its own directory, and miss one only with the first alert.
    """
    if isinstance(value, list):
        for each in value:
            _find_secrets(each, path)
    elif isinstance(value, dict):
        for key, each in value.items():
            if not (str(key).endswith("_file") and isinstance(each, str)):
                _find_secrets(each, path)
                continue
            file = path.parent / Path(each).expanduser()
            if not file.is_file():
                raise UserError(
                    f"{path}: {key}: {file} is not there; put the secret into it, "
                    "readable by you alone"
                )
            value[key] = str(file)


def _webhook_url(settings: StackSettings) -> str:
    url = settings.alert_webhook_url
    if url and not _is_http(url):
        raise UserError(
            f"{PREFIX}ALERT_WEBHOOK_URL: must be an address like http://127.0.0.1:8000/"
        )
    return url


def _inbox(settings: StackSettings) -> dict[str, Any]:
    """The injector's, where a drill's alerts are kept."""
    credentials = {"credentials_file": str(settings.admin_token_file)}
    url = f"{settings.url(settings.injector_port)}/pages"
    return {"url": url, "http_config": {"authorization": credentials}}


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
