"""Terraform's dev platform on a real cluster, with real providers: it comes, stays and goes."""

import json
import os
from pathlib import Path

import pytest

from prove.tools import ensure
from tests.cluster.conftest import Ground
from tests.support.terraform import copied, run, said

NAMESPACE = "prove-by-terraform"
RELEASES = ["monitoring", "shop"]


def test_the_platform_comes_changes_nothing_more_and_goes(ground: Ground, tmp_path: Path) -> None:
    """The API server's part; that pods run is what the tests of the chart are about."""
    root = copied(tmp_path) / "environments" / "dev" / "platform"
    kubeconfig = ground.kubectl.kubeconfig or os.environ.get("KUBECONFIG", "~/.kube/config")
    values = {
        "kubeconfig": {"path": str(kubeconfig)},
        "namespace": NAMESPACE,
        "wait": {"enabled": False},
    }
    (root / "test.auto.tfvars.json").write_text(json.dumps(values))
    terraform = ensure("terraform")["terraform"]

    def asked(*words: str, answer: int = 0) -> str:
        done = run(terraform, *words, "-no-color", cwd=root, data=tmp_path, seconds=900)
        if "Failed to query available provider packages" in done.stderr:
            pytest.skip("the providers of Helm and Kubernetes are not to be had")
        assert done.returncode == answer, said(done)
        return done.stdout

    asked("init")
    try:
        asked("apply", "-auto-approve")
        namespace = ground.kubectl.get("namespace", NAMESPACE)
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        secrets = ground.kubectl.all("secrets", NAMESPACE, "owner=helm")
        assert sorted(secret["metadata"]["labels"]["name"] for secret in secrets) == RELEASES
        assert ground.kubectl.get("deployment", "order", NAMESPACE)
        assert ground.kubectl.get("resourcequota", "prove", NAMESPACE)
        # 0: no change; 2 would be one.
        asked("plan", "-detailed-exitcode")
        assert "0 added, 0 changed, 0 destroyed" in asked("apply", "-auto-approve")
    finally:
        asked("destroy", "-auto-approve")
    there = {item["metadata"]["name"] for item in ground.kubectl.all("namespaces")}
    assert NAMESPACE not in there
