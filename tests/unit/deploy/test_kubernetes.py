"""The manifests: each as its schema says, hardened, and of one mind with the server and with each other."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from polyhead.serving.frontdoor.settings import listed
from polyhead.serving.torchserve.configuration import DEFAULT_CONFIG, Configuration
from tests.unit.deploy.conftest import DEPLOY
from tests.unit.deploy.schemas import faults

KUBERNETES = DEPLOY / "kubernetes"
BASE = KUBERNETES / "base"
OVERLAYS = ("cpu", "gpu", "production")
COMPONENTS = ("keda", "models-in-image", "models-from-image")  # the others are in the overlay production
PLAIN = (
    sorted(BASE.glob("*.yaml")) + sorted((KUBERNETES / "components").glob("*/*.yaml")) + [*DEPLOY.glob("kserve/*.yaml")]
)
RESOURCES = [path for path in PLAIN if "apiVersion" in path.read_text() and path.name != "kustomization.yaml"]
PATCHES = {"tls.yaml", "api-keys.yaml"}  # parts of a resource, whole only where kustomize has put them together


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def deployment(resources: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [one for one in resources if one["kind"] == "Deployment"]
    return found


@pytest.mark.parametrize(
    "path", [p for p in RESOURCES if p.name not in PATCHES], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_every_resource_is_as_its_schema_says(path):
    assert faults(read(path)) == []


def test_a_field_that_no_schema_knows_is_found():
    wrong = read(BASE / "deployment.yaml")
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    assert any("readynessProbe" in fault for fault in faults(wrong))
    runtime = read(DEPLOY / "kserve/servingruntime.yaml")
    runtime["spec"]["containers"][0]["readOnlyRootFilesystem"] = True
    assert any("readOnlyRootFilesystem" in fault for fault in faults(runtime))


def test_every_file_that_a_kustomization_names_is_there_and_every_file_is_named():
    named = set()
    for path in [*KUBERNETES.rglob("kustomization.yaml"), DEPLOY / "grafana/kustomization.yaml"]:
        content = read(path)
        listed = [*content.get("resources", []), *content.get("components", [])]
        listed += [patch["path"] for patch in content.get("patches", []) if "path" in patch]
        listed += [name for generator in content.get("configMapGenerator", []) for name in generator.get("files", [])]
        for name in listed:
            target = (path.parent / name).resolve()
            assert target.exists(), f"{path}: {name}"
            named.add(target / "kustomization.yaml" if target.is_dir() else target)
    values = KUBERNETES / "components/autoscaling/prometheus-adapter.yaml"  # for another release
    ends = {KUBERNETES / "overlays" / name / "kustomization.yaml" for name in OVERLAYS}
    ends |= {KUBERNETES / "components" / name / "kustomization.yaml" for name in COMPONENTS}
    assert {path for path in KUBERNETES.rglob("*.*") if path.is_file()} - named == {values, *ends}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_builds_into_whole_resources(kustomize, overlay):
    built = list(yaml.safe_load_all(kustomize(KUBERNETES / "overlays" / overlay)))
    assert {one["kind"]: faults(one) for one in built if faults(one)} == {}
    assert {one["metadata"].get("namespace") for one in built if one["kind"] != "Namespace"} == {"polyhead"}
    pod = deployment(built)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == f"registry.example.com/polyhead:{'gpu' if overlay == 'gpu' else 'cpu'}"
    generated = {one["metadata"]["name"] for one in built if one["kind"] == "ConfigMap"}
    assert {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume} <= generated
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    limits = container["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) is (overlay == "gpu")
    assert ("--device=cuda" in container["args"]) is (overlay == "gpu")


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_goes_with_the_base_alone(kustomize, component, tmp_path):
    folder = tmp_path / "overlay"
    folder.mkdir()
    own = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    own["resources"] = [os.path.relpath(BASE, folder.resolve())]
    own["components"] = [os.path.relpath(KUBERNETES / "components" / component, folder.resolve())]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(own))
    built = list(yaml.safe_load_all(kustomize(folder)))
    if component == "models-from-image":  # image volumes are known from 1.31 on, and two sources at once are refused
        (models,) = [v for v in deployment(built)["spec"]["template"]["spec"]["volumes"] if v["name"] == "models"]
        assert set(models) == {"name", "image"}
    assert {one["kind"]: faults(one) for one in built if faults(one)} == {}
    claims = [one for one in built if one["kind"] == "PersistentVolumeClaim"]
    assert (claims == []) is component.startswith("models-")


def test_production_speaks_https_and_asks_for_keys_everywhere(kustomize):
    built = list(yaml.safe_load_all(kustomize(KUBERNETES / "overlays/production")))
    pod = deployment(built)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {container[probe]["httpGet"]["scheme"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} == {
        "HTTPS"
    }
    given = [argument.removeprefix("--set=") for argument in container["args"] if argument.startswith("--set=")]
    front = Configuration.load(BASE / "config.properties", given).front_with({}, "production")
    assert front.tls
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for file in (front.tls_certificate, front.tls_key, front.api_keys):
        assert str(Path(file).parent) in mounts
    (monitor,) = [one for one in built if one["kind"] == "ServiceMonitor"]
    assert monitor["spec"]["endpoints"][0]["scheme"] == "https"
    assert "replicas" not in deployment(built)["spec"]


@pytest.mark.parametrize(
    "path", [BASE / "deployment.yaml", DEPLOY / "kserve/servingruntime.yaml"], ids=["base", "kserve"]
)
def test_a_pod_keeps_to_the_restricted_standard(path):
    content = read(path)
    pod = content["spec"]["template"]["spec"] if content["kind"] == "Deployment" else content["spec"]
    (container,) = pod["containers"]
    secured = {**pod.get("securityContext", {}), **container["securityContext"]}
    assert secured["runAsNonRoot"] is True
    assert secured["runAsUser"] == 10001
    assert secured["allowPrivilegeEscalation"] is False
    assert secured["readOnlyRootFilesystem"] is True
    assert secured["capabilities"] == {"drop": ["ALL"]}
    assert secured["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"tmp"}
    (tmp,) = [volume for volume in pod["volumes"] if volume["name"] == "tmp"]
    assert tmp["emptyDir"]["medium"] == "Memory"
    assert tmp["emptyDir"]["sizeLimit"]
    assert [port["containerPort"] for port in container["ports"]] == [8080]
    assert "--front-door" in container["args"]


def test_who_asks_through_an_ingress_of_the_cluster_is_not_taken_for_the_ingress():
    """Else everybody behind it reads /metrics, and all of them are one client to the limits."""
    runtime = read(DEPLOY / "kserve/servingruntime.yaml")["spec"]["containers"][0]
    given = [argument.removeprefix("--set=") for argument in runtime["args"] if argument.startswith("--set=")]
    for config, sets in ((BASE / "config.properties", ()), (DEFAULT_CONFIG, given)):
        front = Configuration.load(config, sets).front_with({}, "test")
        trusted = [ip_network(network) for network in listed(front.trusted_proxies)]
        private = {ip_network(network) for network in listed(front.metrics_from)} - {ip_network("127.0.0.0/8")}
        private -= {ip_network("::1")}
        assert set(trusted) == private != set(), "whoever may read metrics by its address may stand for others"
        assert not any(ip_address(public) in network for public in ("203.0.113.7", "127.0.0.1") for network in trusted)


def test_the_secret_that_tls_is_made_of_has_every_key_that_is_read(kustomize):
    component = KUBERNETES / "components/tls/kustomization.yaml"
    made = set(re.findall(r"--from-file=(\S+)", component.read_text()))
    built = list(yaml.safe_load_all(kustomize(KUBERNETES / "overlays/production")))
    (monitor,) = [one for one in built if one["kind"] == "ServiceMonitor"]
    tls = monitor["spec"]["endpoints"][0]["tlsConfig"]
    assert made == {"tls.crt", "tls.key", tls["ca"]["secret"]["key"]}
    assert f"The certificate names {tls['serverName']}" in component.read_text()


def test_a_pod_has_time_to_drain_and_to_start():
    content = read(BASE / "deployment.yaml")
    pod = content["spec"]["template"]["spec"]
    configuration = Configuration.load(BASE / "config.properties")
    service, settings = configuration.service_with({}, "base"), configuration.settings_with({}, "base")
    assert pod["automountServiceAccountToken"] is False
    assert service.drain_timeout + 10 <= pod["terminationGracePeriodSeconds"]
    probe = pod["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= settings.startup_timeout
    readiness = pod["containers"][0]["readinessProbe"]
    # Whoever drains is unready at once: the kubelet must have seen it before the first refusal.
    assert service.drain_delay > readiness["periodSeconds"] * readiness["failureThreshold"]
    runtime = read(DEPLOY / "kserve/servingruntime.yaml")["spec"]["containers"][0]
    timeout = next(int(a.partition("=")[2]) for a in runtime["args"] if a.startswith("--drain-timeout="))
    grace = read(DEPLOY / "kserve/inferenceservice.yaml")["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert timeout + 10 <= grace


def test_selectors_find_the_pods():
    content = read(BASE / "deployment.yaml")
    labels = content["spec"]["template"]["metadata"]["labels"]
    service, monitor = read(BASE / "service.yaml"), read(KUBERNETES / "components/monitoring/servicemonitor.yaml")
    for selector in (
        content["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        read(BASE / "poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
        read(BASE / "networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    # By the operator's rule the job is the service's name, which the alerts speak of.
    assert service["metadata"]["name"] == "polyhead"
    ports = {port["name"] for port in content["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert {service["spec"]["ports"][0]["targetPort"], monitor["spec"]["endpoints"][0]["port"]} == ports == {"http"}


def test_nothing_leaves_a_pod_but_questions_to_dns():
    policy = read(BASE / "networkpolicy.yaml")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [(port["port"], port["protocol"]) for rule in policy["egress"] for port in rule["ports"]] == [
        (53, "UDP"),
        (53, "TCP"),
    ]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["http"]
    assert all(rule["from"] for rule in policy["ingress"])


def test_the_autoscaler_asks_for_metrics_that_the_adapter_makes():
    folder = KUBERNETES / "components/autoscaling"
    made = {rule["name"]["as"] for rule in read(folder / "prometheus-adapter.yaml")["rules"]["custom"]}
    asked = {m["pods"]["metric"]["name"] for m in read(folder / "horizontalpodautoscaler.yaml")["spec"]["metrics"]}
    assert asked == made


@pytest.mark.parametrize(
    "path", [BASE / "config.properties", DEPLOY / "compose/config.properties"], ids=["base", "compose"]
)
def test_a_config_properties_of_a_deployment_has_every_key_of_torchserve_that_the_roots_has(path):
    ours, root = Configuration.load(path), Configuration.load(DEFAULT_CONFIG)
    different = {
        key for key in {**ours.properties, **root.properties} if ours.properties.get(key) != root.properties.get(key)
    }
    assert different <= {"vmargs", "enable_model_api"}
    assert re.sub(r"-Xmx\w+", "", ours.properties["vmargs"]) == re.sub(r"-Xmx\w+", "", root.properties["vmargs"])
    front = ours.front_with({}, "test")
    assert front.door
    front.require_agreement(ours.settings_with({}, "test").response_timeout, ours.max_request_size)
    assert ours.settings_with({}, "test").log_format == "json"
