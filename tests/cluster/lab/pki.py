"""Certificates and kubeconfigs of one cluster: they are its own, and end within a day."""

import base64
import subprocess
from pathlib import Path

import yaml

DAYS = "1"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """A self-signed CA, and what it signs, as NAME.crt and NAME.key in one directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _openssl(
            *("req", "-x509", *_KEY, "-days", DAYS, "-subj", f"/CN={name}"),
            *("-addext", "basicConstraints=critical,CA:TRUE"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"),
            *("-keyout", str(self.key), "-out", str(self.certificate)),
        )

    @property
    def certificate(self) -> Path:
        """The CA's own certificate."""
        return self.directory / f"{self.name}.crt"

    @property
    def key(self) -> Path:
        """The CA's own key."""
        return self.directory / f"{self.name}.key"

    def sign(self, name: str, subject: str, usage: str, names: str = "") -> None:
        """Make NAME.key and NAME.crt, `usage` clientAuth or serverAuth, `names` what it is for."""
        extensions = [f"extendedKeyUsage={usage}", "keyUsage=digitalSignature"]
        if names:
            extensions.append(f"subjectAltName={names}")
        _openssl(
            *("req", "-x509", *_KEY, "-days", DAYS, "-subj", subject),
            *("-CA", str(self.certificate), "-CAkey", str(self.key)),
            *(argument for line in extensions for argument in ("-addext", line)),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-keyout", str(self.directory / f"{name}.key")),
            *("-out", str(self.directory / f"{name}.crt")),
        )

    def kubeconfig(self, user: str, server: str, path: Path) -> Path:
        """Write what a client named `user` (already signed) needs to reach `server`."""

        def data(file: str) -> str:
            return base64.b64encode((self.directory / file).read_bytes()).decode()

        cluster = {"server": server, "certificate-authority-data": data(f"{self.name}.crt")}
        keys = {
            "client-certificate-data": data(f"{user}.crt"),
            "client-key-data": data(f"{user}.key"),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "prove",
            "clusters": [{"name": "prove", "cluster": cluster}],
            "users": [{"name": user, "user": keys}],
            "contexts": [{"name": "prove", "context": {"cluster": "prove", "user": user}}],
        }
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(0o600)
        path.write_text(yaml.safe_dump(config))
        return path


def service_account_keys(directory: Path) -> None:
    """Make sa.key and sa.pub, which sign and check the tokens of ServiceAccounts."""
    key, public = str(directory / "sa.key"), str(directory / "sa.pub")
    _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
    _openssl("pkey", "-in", key, "-pubout", "-out", public)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
