"""The Helm chart, rendered by Helm and held against Kubernetes' own API, rules and programs.

What a cluster makes of it is in tests/cluster.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import psycopg
import pytest
import yaml
from service_kit import ports, postgres
from service_kit.testing import wait_until

from prove import tools
from prove.charts import generate, reference
from tests.support import charts, runbooks
from tests.support.charts import CHART, PROFILES, ROOT, Object, containers, of_kind, pod, workloads

WITHOUT = (
    "--set=acquirer.enabled=false,acquirer.url=https://acquirer.example.com",
    "--set=collector.enabled=false,grafana.enabled=false,jaeger.enabled=false",
    "--set=victorialogs.enabled=false,kubeStateMetrics.enabled=false,canary.enabled=false",
    "--set=blackbox.enabled=false,alertmanager.enabled=false,prometheus.kubelet=false",
    "--set=persistence.enabled=false,quota.enabled=false,networkPolicy.enabled=false",
    "--set=product.autoscaling.enabled=false",
)
FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "kind": {"profile": "values-kind.yaml"},
    "production": {"profile": "values-production.yaml"},
    "the least": {"arguments": WITHOUT},
    "drill, with an ingress": {
        "arguments": ("--set=alerts.profile=drill,ingress.enabled=true,ingress.tlsSecret=tls",)
    },
    "the shop alone": {"arguments": ("--set=monitoring.enabled=false",)},
    "monitoring alone": {"arguments": ("--set=shop.enabled=false",)},
}
GROUPS = {
    "v1",
    "apps/v1",
    "autoscaling/v2",
    "networking.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
}
SERVICES = ("product", "order", "payment")
TALK_TO_THE_API_SERVER = {"prometheus", "kube-state-metrics"}


def rendered(form: str) -> list[Object]:
    return charts.objects(
        *FORMS[form].get("arguments", ()), profile=FORMS[form].get("profile", "values.yaml")
    )


def checked(manifests: str) -> tuple[int, str]:
    binary = tools.ensure("manifests")["manifests"]
    done = subprocess.run([binary], input=manifests, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


# -- Kubernetes' own word


@pytest.mark.parametrize("profile", PROFILES)
def test_helm_finds_nothing_to_say(profile: str) -> None:
    done = charts.helm("lint", "--strict", str(CHART), f"--values={CHART / profile}")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_every_object_is_of_kubernetes_1_31_and_restricted(form: str) -> None:
    assert {each["apiVersion"] for each in rendered(form)} <= GROUPS
    arguments = FORMS[form].get("arguments", ())
    manifests = charts.text(*arguments, profile=FORMS[form].get("profile", "values.yaml"))

    code, said = checked(manifests)

    assert code == 0, said


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("readOnlyRootFilesystem: true", "readonlyRootFilesystem: true", "unknown field"),
        ("runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot != true"),
        ("apiVersion: autoscaling/v2", "apiVersion: autoscaling/v3", "no kind"),
        ("replicas: 1", "replicas: one", "replicas"),
        ("drop: [ALL]", "drop: [NET_RAW]", "unrestricted capabilities"),
    ],
)
def test_what_a_cluster_would_refuse_is_found(before: str, after: str, problem: str) -> None:
    manifests = charts.text()
    assert before in manifests

    code, said = checked(manifests.replace(before, after))

    assert code == 1
    assert problem in said


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("product.replica=3", "additional properties 'replica' not allowed"),
        ("order.autoscaling.min=0", "minimum: got 0, want 1"),
        ("image.pullPolicy=Sometimes", "value must be one of 'IfNotPresent', 'Always', 'Never'"),
        ("product.resources.limits.memory=lots", "does not match pattern"),
        ("alerts.profile=fast", "value must be one of 'standard', 'drill'"),
        ("order.env.logLevel=debug", "invalid propertyName 'logLevel'"),
        ("prometheus.image.repository=https://x", "does not match pattern"),
        ("acquirer.enabled=false", "acquirer.url: with acquirer.enabled=false, say where"),
        ("postgresql.enabled=false", "secrets.existingSecret: with postgresql.enabled=false"),
        ("telemetry.endpoint=http://otel.example.com:4318", "name its port, as in --set"),
        ("alertmanager.receivers[0].name=nobody", "nobody is called nobody; alerts go to on-call"),
    ],
)
def test_a_wrong_value_is_named(setting: str, message: str) -> None:
    done = charts.helm("template", "prove", str(CHART), f"--set={setting}")

    assert done.returncode != 0
    assert message in done.stderr


def test_a_cluster_that_is_too_old_is_refused() -> None:
    done = charts.helm("template", "prove", str(CHART), "--kube-version=1.30.9")

    assert done.returncode != 0
    assert "requires kubeVersion: >=1.31.0-0" in done.stderr


# -- what is generated


def test_what_is_generated_is_as_generated() -> None:
    assert generate.differences(ROOT, tools.ensure("helm")["helm"]) == []


def test_a_change_by_hand_is_found(tmp_path: Path) -> None:
    for part in ("observability", "charts", "k8s", "docs/reference"):
        shutil.copytree(ROOT / part, tmp_path / part)
    changed = [generate.FILES / "collector/collector.yaml", generate.K8S / "base/order.yaml"]
    for path in (*changed, generate.REFERENCE):
        with (tmp_path / path).open("a") as file:
            file.write("# more\n")
    (tmp_path / generate.K8S / "base/more.yaml").touch()

    found = generate.differences(tmp_path, tools.ensure("helm")["helm"])

    wanted = {*map(str, changed), str(generate.REFERENCE), f"{generate.K8S}/base/more.yaml"}
    # What is rendered from a changed file differs, too.
    assert wanted <= set(found) <= wanted | {f"{generate.K8S}/monitoring/collector.yaml"}


def test_every_directory_of_k8s_is_a_kustomization() -> None:
    kubectl = shutil.which("kubectl")
    for part in ("base", "monitoring", "autoscaling", "policies"):
        directory = generate.K8S / part
        listed = yaml.safe_load((ROOT / directory / "kustomization.yaml").read_text())["resources"]
        there = {path.name for path in (ROOT / directory).glob("*.yaml")}
        assert set(listed) == there - {"kustomization.yaml"}
        if kubectl:
            built = subprocess.run(
                [kubectl, "kustomize", ROOT / directory], capture_output=True, text=True, check=True
            )
            assert checked(built.stdout)[0] == 0


def test_every_value_is_typed_and_described() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    found = {name: meaning for name, _, meaning in reference.described(schema, values)}

    assert all(meaning.endswith(".") for meaning in found.values())
    assert leaves(values) <= covered(found, leaves(values))
    assert jsonschema_rs.validator_for(schema).is_valid(values)
    loose = [path for path, part in schemas(schema) if not closed(part)]
    assert loose == []


def leaves(values: Any, path: str = "") -> set[str]:
    if not isinstance(values, dict) or not values:
        return {path}
    return {
        leaf
        for name, value in values.items()
        for leaf in leaves(value, f"{path}.{name}" if path else name)
    }


def covered(described: dict[str, str], names: set[str]) -> set[str]:
    return {name for name in names if any(f"{name}.".startswith(f"{d}.") for d in described)}


def schemas(schema: Any, path: str = "") -> list[tuple[str, Object]]:
    """Every part of a schema that has properties, with where it is."""
    found = []
    if isinstance(schema, dict):
        if "properties" in schema:
            found.append((path, schema))
        for name, part in schema.items():
            found += schemas(part, f"{path}/{name}")
    return found


def closed(schema: Object) -> bool:
    # Alertmanager's own form has more keys than are ours to list.
    return schema.get("additionalProperties") is False or schema.get("required") == ["name"]


# -- how things run


@pytest.mark.parametrize("form", FORMS)
def test_every_container_says_what_it_needs(form: str) -> None:
    accounts = of_kind(rendered(form), "ServiceAccount")
    for name, workload in workloads(rendered(form)).items():
        spec = pod(workload)
        assert spec["serviceAccountName"] == name
        assert name in accounts
        may_ask = spec["automountServiceAccountToken"]
        assert may_ask is False or name in TALK_TO_THE_API_SERVER, name
        assert spec["enableServiceLinks"] is False
        for container in containers(workload):
            resources = container["resources"]
            for what in ("cpu", "memory"):
                assert amount(resources["requests"][what]) <= amount(resources["limits"][what])
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
        if workload["kind"] != "Pod":
            for container in spec["containers"]:
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container), name


def test_a_pod_has_time_for_its_longest_request() -> None:
    shop = workloads(rendered("default"))
    for name in SERVICES:
        (container,) = pod(shop[name])["containers"]
        env = {each["name"]: each.get("value") for each in container["env"]}
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        given = pod(shop[name])["terminationGracePeriodSeconds"]
        assert given > pause + int(env["SHUTDOWN_GRACE_S"])
        # CHECKOUT_TIMEOUT_S, the longest that a customer is kept waiting.
        assert int(env["SHUTDOWN_GRACE_S"]) > 10


@pytest.mark.parametrize("form", ["default", "kind", "production"])
def test_services_grow_and_shrink_and_survive_a_drain(form: str) -> None:
    found = rendered(form)
    deployments = of_kind(found, "Deployment")
    scalers = of_kind(found, "HorizontalPodAutoscaler")
    budgets = of_kind(found, "PodDisruptionBudget")
    assert set(scalers) == set(budgets) == set(SERVICES)
    for name in SERVICES:
        assert "replicas" not in deployments[name]["spec"]
        metrics = {each["resource"]["name"] for each in scalers[name]["spec"]["metrics"]}
        assert metrics == {"cpu", "memory"}
        behavior = scalers[name]["spec"]["behavior"]
        assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 60
        labels = deployments[name]["spec"]["template"]["metadata"]["labels"]
        assert budgets[name]["spec"]["selector"]["matchLabels"].items() <= labels.items()
        keys = [each["topologyKey"] for each in pod(deployments[name])["topologySpreadConstraints"]]
        assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


def test_without_an_autoscaler_the_replicas_are_said() -> None:
    product = of_kind(rendered("the least"), "Deployment")["product"]

    assert product["spec"]["replicas"] == 2


@pytest.mark.parametrize("form", ["default", "kind", "production"])
def test_the_quota_has_room_for_all_at_their_most(form: str) -> None:
    found = rendered(form)
    scalers = of_kind(found, "HorizontalPodAutoscaler")
    hard = of_kind(found, "ResourceQuota")["prove"]["spec"]["hard"]
    needed = dict.fromkeys(hard, 0.0)
    for name, workload in workloads(found).items():
        most = 1
        if name in scalers:
            most = scalers[name]["spec"]["maxReplicas"]
        if workload["kind"] == "Deployment" and workload["spec"]["strategy"]["type"] != "Recreate":
            most += 1
        needed["pods"] += most
        for each in pod(workload)["containers"]:  # those before them ask for no more
            for of in ("requests", "limits"):
                for what, value in each["resources"][of].items():
                    needed[f"{of}.{what}"] += most * amount(value)

    short = {name: (need, hard[name]) for name, need in needed.items() if need > amount(hard[name])}

    assert short == {}


def amount(quantity: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(m|[kMGT]i?)?", str(quantity)).groups()  # type: ignore[union-attr]
    powers = {None: 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    powers |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
    return float(number) * powers[unit]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_referred_to_is_there(form: str) -> None:
    found = rendered(form)
    config_maps, secrets = of_kind(found, "ConfigMap"), of_kind(found, "Secret")
    existing = {"prove-secrets"} if form == "production" else set()
    for name, workload in workloads(found).items():
        for volume in pod(workload).get("volumes", ()):
            parts = [volume, *volume.get("projected", {}).get("sources", ())]
            for part in parts:
                if "configMap" in part:
                    keys = {item["key"] for item in part["configMap"].get("items", ())}
                    assert keys <= set(config_maps[part["configMap"]["name"]]["data"])
                if "secret" in part:
                    assert part["secret"]["secretName"] in {*secrets, *existing}, name
        mounted = {volume["name"] for volume in pod(workload).get("volumes", ())}
        claims = workload["spec"].get("volumeClaimTemplates", ())
        mounted |= {claim["metadata"]["name"] for claim in claims}
        for container in containers(workload):
            uses = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert uses <= mounted, name
            for variable in container.get("env") or ():
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference and not existing:
                    assert reference["key"] in secrets[reference["name"]]["data"]
    for name, service in of_kind(found, "Service").items():
        (workload,) = [
            each
            for each in workloads(found).values()
            if service["spec"]["selector"].items()
            <= charts.pods(each)["metadata"]["labels"].items()
        ]
        listening = {
            port["containerPort"]
            for container in pod(workload)["containers"]
            for port in container.get("ports", ())
        }
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= listening, name


# -- images


def test_no_image_names_a_registry() -> None:
    for form in FORMS:
        for workload in workloads(rendered(form)).values():
            for container in containers(workload):
                assert "." not in container["image"].partition("/")[0].partition(":")[0]
                assert container["image"].partition(":")[2] not in ("", "latest")


def test_one_registry_is_for_all_and_a_parts_own_wins() -> None:
    found = charts.objects(
        "--set-string=image.registry=mirror.example.com/x/,image.tag=9",
        "--set=jaeger.image.registry=other.example.com",
    )
    images = {
        container["image"]
        for workload in workloads(found).values()
        for container in containers(workload)
    }

    assert "mirror.example.com/x/prove/order-service:9" in images
    assert "other.example.com/jaegertracing/all-in-one:1.62.0" in images
    assert all(image.startswith(("mirror.example.com/x/", "other.")) for image in images)


# -- who may talk to whom


def edges(found: list[Object]) -> set[tuple[str, str, int]]:
    """What both ends allow."""
    allowed: dict[str, set[tuple[str, str, int]]] = {"ingress": set(), "egress": set()}
    for name, policy in of_kind(found, "NetworkPolicy").items():
        for direction, key in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, ()):
                for peer in rule.get(key, ()):
                    if "namespaceSelector" in peer:
                        continue
                    other = peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
                    ends = (other, name) if direction == "ingress" else (name, other)
                    allowed[direction] |= {(*ends, port["port"]) for port in rule["ports"]}
    assert allowed["ingress"] == allowed["egress"]
    return allowed["ingress"]


@pytest.mark.parametrize("form", ["default", "kind", "production", "drill, with an ingress"])
def test_every_address_that_a_pod_is_told_is_an_edge_and_no_other(form: str) -> None:
    found = rendered(form)
    services = of_kind(found, "Service")
    config_maps = of_kind(found, "ConfigMap")
    told = set()
    for name, workload in workloads(found).items():
        words = yaml.safe_dump(containers(workload))
        for volume in pod(workload).get("volumes", ()):
            for part in (volume, *volume.get("projected", {}).get("sources", ())):
                if "configMap" in part and name in ("prometheus", "collector"):
                    words += yaml.safe_dump(config_maps[part["configMap"]["name"]]["data"])
        for other, port in re.findall(r"\b([a-z][a-z-]+):(\d{4,5})\b", words):
            if other in services and other != name:
                told.add((name, other, int(port)))
    # Prometheus has blackbox_exporter ask the services for it.
    told = {
        ("blackbox", other, port)
        if name == "prometheus" and other in SERVICES
        else (name, other, port)
        for name, other, port in told
    }

    assert edges(found) == told


def test_nothing_is_allowed_that_no_edge_names() -> None:
    policies = of_kind(rendered("default"), "NetworkPolicy")

    assert policies["deny-all"]["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }
    open_ends = {
        (name, port["port"])
        for name, policy in policies.items()
        for rule in policy["spec"].get("egress", ())
        if "to" not in rule
        for port in rule["ports"]
    }
    assert open_ends == {
        *(("prometheus", port) for port in (443, 6443, 10250)),
        *(("kube-state-metrics", port) for port in (443, 6443)),
    }
    for policy in policies.values():
        assert all("from" in rule for rule in policy["spec"].get("ingress", ()))


def test_rights_are_to_read_and_few() -> None:
    found = rendered("default")
    rules = {
        (each["kind"], each["metadata"]["name"]): each["rules"]
        for each in found
        if each["kind"] in ("Role", "ClusterRole")
    }

    assert set(rules) == {
        ("ClusterRole", "prove-prove-prometheus"),
        ("Role", "kube-state-metrics"),
    }
    for granted in rules.values():
        for rule in granted:
            assert set(rule["verbs"]) <= {"get", "list", "watch"}
            assert not {"*", "secrets", "configmaps"} & set(rule["resources"])


# -- upgrades


def test_an_upgrade_changes_nothing_that_can_not_be_changed(tmp_path: Path) -> None:
    newer = tmp_path / "prove"
    shutil.copytree(CHART, newer)
    about = (newer / "Chart.yaml").read_text()
    about = about.replace("version: 0.1.0", "version: 9.9.9").replace("appVersion: 0.1.0", "")
    (newer / "Chart.yaml").write_text(about)
    old, new = charts.objects(), charts.objects(chart=newer)

    assert "prove-9.9.9" in yaml.safe_dump(new)
    for each, then in ((workloads(old), workloads(new)), (services(old), services(new))):
        assert set(each) == set(then)
        for name in each:
            assert immutable(each[name]) == immutable(then[name])


def services(found: list[Object]) -> dict[str, Object]:
    return of_kind(found, "Service")


def immutable(each: Object) -> Object:
    """What the API server refuses to change (of a StatefulSet: all but some)."""
    spec = each["spec"]
    if each["kind"] == "StatefulSet":
        free = {"replicas", "template", "updateStrategy", "minReadySeconds", "revisionHistoryLimit"}
        return {key: value for key, value in spec.items() if key not in free}
    return {"selector": spec.get("selector")}


@pytest.mark.parametrize(
    ("setting", "restarted"),
    [
        ("alertmanager.webhookUrl=https://example.com/hook", {"alertmanager"}),
        ("prometheus.kubelet=false", {"prometheus"}),
        ("alerts.grafanaUrl=https://grafana.example.com", {"prometheus", "grafana"}),
        ("alerts.profile=drill", {*SERVICES, "prometheus", "alertmanager", "canary"}),
        ("quota.pods=99", set()),
        ("order.autoscaling.max=9", set()),
    ],
)
def test_a_change_restarts_what_it_is_for(setting: str, restarted: set[str]) -> None:
    before, after = workloads(charts.objects()), workloads(charts.objects(f"--set={setting}"))

    changed = {name for name in before if charts.pods(before[name]) != charts.pods(after[name])}

    assert changed == restarted


# -- what the servers are told


def firing(alert: str) -> str:
    return f'ALERTS{{alertname="{alert}", alertstate="firing"}}'


@pytest.mark.parametrize("profile", ["standard", "drill"])
def test_prometheus_and_alertmanager_understand_what_they_are_told(
    profile: str, tmp_path: Path
) -> None:
    # The laptop's promtool knows no nodes; the kubelets' part is asked for in a cluster.
    arguments = (f"--set=alerts.profile={profile},prometheus.kubelet=false",)
    config_maps = of_kind(charts.objects(*arguments), "ConfigMap")
    for name in ("prometheus", "prometheus-rules", "alertmanager"):
        for file, content in config_maps[name]["data"].items():
            (tmp_path / file).write_text(content)

    run(tools.ensure("prometheus")["promtool"], "check", "config", tmp_path / "prometheus.yml")
    amtool = tools.ensure("alertmanager")["amtool"]
    run(amtool, "check-config", tmp_path / "alertmanager.yml")

    rules = [yaml.safe_load(file.read_text()) for file in tmp_path.glob("*.rules.yaml")]
    names = {
        rule.get("alert") for each in rules for group in each["groups"] for rule in group["rules"]
    }
    assert {"ContainerKilledForMemory", "ContainerRestarts", "OrderRecoverySlow"} <= names
    assert "ServiceCrashLooping" not in names


def test_what_only_a_cluster_can_tell_has_a_runbook() -> None:
    rules = yaml.safe_load((ROOT / "observability/kubernetes/kubernetes.rules.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            page = ROOT / rule["annotations"]["runbook_url"]
            assert page.stem == rule["alert"]
            assert tuple(runbooks.sections(page)) == runbooks.SECTIONS


def test_what_only_a_cluster_can_tell_is_told(tmp_path: Path) -> None:
    rules = of_kind(charts.objects(), "ConfigMap")["prometheus-rules"]["data"]
    (tmp_path / "kubernetes.rules.yaml").write_text(rules["kubernetes.rules.yaml"])
    pod_of = '{namespace="prove", pod="order-1", container="order"'
    scaler = '{namespace="prove", horizontalpodautoscaler="order"}'
    restarts, reason = (
        f"kube_pod_container_status_{name}" for name in ("restarts_total", "last_terminated_reason")
    )
    series = {
        f"{restarts}{pod_of}}}": "0x5 1x20 2 3 4 5x5 5x40",
        # It stays the last reason for as long as the pod lives.
        f'{reason}{pod_of}, reason="OOMKilled"}}': "0x5 1x80",
        f"kube_horizontalpodautoscaler_status_desired_replicas{scaler}": "2x10 6x70",
        f"kube_horizontalpodautoscaler_spec_max_replicas{scaler}": "6x80",
    }
    expected = {
        ("ContainerKilledForMemory", "5m"): 0,
        ("ContainerKilledForMemory", "8m"): 1,
        ("ContainerKilledForMemory", "20m"): 0,
        ("ContainerRestarts", "20m"): 0,
        ("ContainerRestarts", "32m"): 1,
        ("ContainerRestarts", "60m"): 0,
        ("AutoscalerAtItsLimit", "10m"): 0,
        ("AutoscalerAtItsLimit", "25m"): 1,
    }
    test = {
        "rule_files": ["kubernetes.rules.yaml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": v} for name, v in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f"count({firing(alert)}) or vector(0)",
                        "eval_time": at,
                        "exp_samples": [{"value": count}],
                    }
                    for (alert, at), count in expected.items()
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))

    run(tools.ensure("prometheus")["promtool"], "test", "rules", tmp_path / "test.yaml")


def test_the_collector_is_told_what_the_laptops_is() -> None:
    told = of_kind(charts.objects(), "ConfigMap")["collector"]["data"]["collector.yaml"]

    assert told.strip() == (ROOT / "observability/collector/collector.yaml").read_text().strip()


def test_every_variable_of_the_collector_is_given() -> None:
    needed = set(
        re.findall(r"\$\{env:(\w+)", charts.text("--show-only=templates/monitoring/collector.yaml"))
    )
    (container,) = pod(workloads(charts.objects())["collector"])["containers"]

    assert needed <= {each["name"] for each in container["env"]}


def test_receivers_take_the_place_of_those_of_their_names(tmp_path: Path) -> None:
    slack = yaml.safe_load((ROOT / "observability/alertmanager/receivers/slack.yaml").read_text())
    (tmp_path / "values.yaml").write_text(yaml.safe_dump({"alertmanager": slack}))
    found = charts.objects(
        f"--values={tmp_path / 'values.yaml'}", "--set=alertmanager.webhookUrl=http://x"
    )
    told = of_kind(found, "ConfigMap")["alertmanager"]["data"]["alertmanager.yml"]

    receivers = {each["name"]: each for each in yaml.safe_load(told)["receivers"]}
    assert receivers["on-call"]["slack_configs"][0]["channel"] == "#on-call"
    assert all(each["webhook_configs"] == [{"url": "http://x"}] for each in receivers.values())


def test_postgresql_is_prepared_again_and_again(tmp_path: Path) -> None:
    try:
        programs = postgres.programs_directory()
    except postgres.MissingError as error:
        pytest.skip(str(error))
    script = of_kind(charts.objects(), "ConfigMap")["postgresql"]["data"]["prepare.sh"]
    script = script.replace("/tmp/", f"{tmp_path}/")  # noqa: S108 - that of its pod
    (tmp_path / "prepare.sh").write_text(script)
    account = "postgres" if os.geteuid() == 0 else None
    if account:
        for directory in (tmp_path, *tmp_path.parents):
            if directory.owner() == "root" and directory.is_relative_to("/tmp/pytest-of-root"):  # noqa: S108
                directory.chmod(0o755)
        shutil.chown(tmp_path, account)
    for password in ("first", "second"):
        run(
            "sh",
            tmp_path / "prepare.sh",
            user=account,
            cwd=tmp_path,
            env={
                "PATH": f"{programs}:{os.environ['PATH']}",
                "PGDATA": str(tmp_path / "data"),
                **{f"{name.upper()}_PASSWORD": password for name in (*SERVICES, "postgres")},
            },
        )
    port = ports.claim()[0]
    options = ("-p", str(port), "-c", "unix_socket_directories=", "-c", "fsync=off")
    server = subprocess.Popen(
        [programs / "postgres", "-D", tmp_path / "data", *options],
        user=account,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for service in SERVICES:
            wait_until(lambda: answer(service, service, "second", port) == "", what="an answer")  # noqa: B023
            assert "authentication failed" in answer(service, service, "first", port)
        assert "permission denied" in answer("order", "payment", "second", port)
    finally:
        server.terminate()
        server.wait()


def answer(user: str, database: str, password: str, port: int) -> str:
    """What PostgreSQL says against it; empty when it lets in."""
    try:
        psycopg.connect(
            f"host=127.0.0.1 port={port} user={user} dbname={database} password={password}"
        ).close()
    except psycopg.OperationalError as error:
        return str(error)
    return ""


def run(*command: str | Path, **more: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr
