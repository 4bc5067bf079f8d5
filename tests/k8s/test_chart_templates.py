"""What the chart renders, fact by fact."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from chart_kit import CASES, CHART, container, engine, helm, objects, of_kind, pod_templates, sets

DEFAULT = CASES["default"]
MULTI_NODE = CASES["example-multi-node-2x4xh100"]
RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
    "image",
}
PRIVILEGED = {"host-path", "compile-cache-host", "fabric-gke-roce", "fabric-aks-infiniband"}


def plan(case: tuple[str, ...], file: str = "vllm.yaml") -> dict[str, Any]:
    """A pool's file in its ConfigMap."""
    data = next(one["data"] for one in of_kind(case, "ConfigMap") if file in one["data"])
    return dict(yaml.safe_load(data[file]))


def test_one_value_is_enough() -> None:
    """GPUs by name: vLLM's config from the plan, whole GPUs of that product, keys, test, network policy."""
    assert plan(DEFAULT)["tensor-parallel-size"] == 2
    assert plan(DEFAULT)["served-model-name"] == ["Qwen/Qwen3.5-122B-A10B", "Qwen/Qwen3.5-122B-A10B-FP8"]
    assert container(engine(DEFAULT), "engine")["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert {one["kind"] for one in objects(DEFAULT)} >= {
        "Deployment",
        "Service",
        "Secret",
        "Job",
        "PersistentVolumeClaim",
        "NetworkPolicy",
        "PodDisruptionBudget",
    }


@pytest.mark.parametrize("name", sorted(set(CASES) - PRIVILEGED))
def test_pods_pass_pod_security_restricted(name: str) -> None:
    """Every pod of every case keeps the standard "restricted", and gets no token and no service links."""
    for pod in pod_templates(CASES[name]):
        spec = pod["spec"]
        assert spec["enableServiceLinks"] is False
        assert spec["automountServiceAccountToken"] is (pod["of"].endswith("-epp"))
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"].get("runAsUser") != 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {key for volume in spec["volumes"] for key in volume} - {"name"} <= RESTRICTED_VOLUMES
        for one in [*spec["containers"], *spec.get("initContainers", [])]:
            context = one["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] or one["name"] in ("engine", "plan")


@pytest.mark.parametrize("name", sorted(CASES))
def test_grace_covers_the_drain(name: str) -> None:
    """Sleep, requests and margin fit into the grace period; vLLM is told the same seconds."""
    for pod in pod_templates(CASES[name]):
        for one in pod["spec"]["containers"]:
            if one["name"] == "engine":
                sleep = one["lifecycle"]["preStop"]["sleep"]["seconds"]
                drain = int(one["args"][one["args"].index("--shutdown-timeout") + 1])
                worker = not any(port["name"] == "http" for port in one["ports"])
                needed = sleep if worker else sleep + drain
                assert pod["spec"]["terminationGracePeriodSeconds"] > needed


def test_drain_is_one_value() -> None:
    """120 s for requests: 15 + 120 + 15 of grace; 300 s: 330."""
    assert engine(DEFAULT)["terminationGracePeriodSeconds"] == 150
    assert engine(sets("drain.requestSeconds=300"))["terminationGracePeriodSeconds"] == 330


def test_start_up_budget_is_computed() -> None:
    """127.15 GB at 0.5 GB/s is 254 s, and 1500 s for compiling and 60 s: 182 probes, 10 s apart."""
    probe = container(engine(DEFAULT), "engine")["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1820
    assert (
        engine(sets("startup.budgetSeconds=100"))["containers"][0]["startupProbe"]["failureThreshold"] == 10
    )


def test_weights_are_named_by_content() -> None:
    """The folder holds the hash of repository and commit; another commit lies elsewhere."""
    first = plan(DEFAULT)["model"]
    other = plan(sets("model.revision=" + "1" * 40))["model"]
    assert first.startswith("/weights/qwen3-5-122b-a10b-fp8-")
    assert other.startswith("/weights/qwen3-5-122b-a10b-fp8-")
    assert first != other


def test_a_changed_job_gets_another_name() -> None:
    """A Job cannot be changed, so an upgrade that changes it makes a new one; else the name stays."""
    name = of_kind(DEFAULT, "Job", "")[0]["metadata"]["name"]
    assert of_kind(sets("drain.requestSeconds=60"), "Job")[0]["metadata"]["name"] == name
    changed = of_kind(sets("weights.download.resources.limits.cpu=8"), "Job")[0]["metadata"]["name"]
    assert changed != name
    assert name.startswith("qwen-qwenhost-weights-")


def test_engines_mount_weights_read_only() -> None:
    """The volume that a Job fills is read-only; the wait is outside the start-up budget."""
    volume = next(one for one in engine(DEFAULT)["volumes"] if one["name"] == "weights")
    assert volume["persistentVolumeClaim"]["readOnly"] is True
    assert container(engine(DEFAULT), "weights")["command"] == ["/bin/sh", "/scripts/wait.sh"]


def test_claim_of_one_node_is_filled_by_the_pod() -> None:
    """ReadWriteOnce: no Job that waits for a claim which the engine holds."""
    case = CASES["weights-one-node"]
    assert [one["metadata"]["name"] for one in of_kind(case, "Job")] == ["qwen-qwenhost-test"]
    assert container(engine(case), "fetch-0")["command"] == ["/bin/sh", "/scripts/fetch.sh"]
    mounts = container(engine(case), "engine")["volumeMounts"]
    assert next(one for one in mounts if one["name"] == "weights")["readOnly"] is True


def test_existing_weights_are_checked() -> None:
    """A claim, image or host path is verified before the engine reads it."""
    for name in ("pvc-source", "oci", "host-path"):
        assert container(engine(CASES[name]), "weights")["command"] == ["qwenhost", "fetch"]
    assert container(engine(CASES["pvc-source"]), "weights")["args"] == ["/weights/qwen"]


def test_rollout_finishes_on_full_gpus() -> None:
    """One pod goes before its successor comes, unless GPUs are spare."""
    rolling = of_kind(DEFAULT, "Deployment")[0]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 0, "maxUnavailable": 1}
    spare = of_kind(CASES["spare-gpus"], "Deployment")[0]["spec"]["strategy"]["rollingUpdate"]
    assert spare == {"maxSurge": 1, "maxUnavailable": 0}


def test_slices_of_gpus_are_not_scheduled_on() -> None:
    """Time-slicing and MPS are excluded, products and memory required by GPU feature discovery's labels."""
    affinity = engine(DEFAULT)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    rules = {rule["key"]: rule for rule in affinity["nodeSelectorTerms"][0]["matchExpressions"]}
    assert rules["nvidia.com/gpu.sharing-strategy"]["operator"] == "NotIn"
    assert rules["nvidia.com/gpu.product"]["values"] == ["NVIDIA-H200"]
    assert rules["nvidia.com/gpu.memory"]["operator"] == "Gt"


def test_groups_span_nodes() -> None:
    """Two nodes: a group of two, HTTP and probes on the leader alone, a budget for a whole group."""
    group = of_kind(MULTI_NODE, "LeaderWorkerSet")[0]["spec"]["leaderWorkerTemplate"]
    assert (group["size"], group["restartPolicy"]) == (2, "RecreateGroupOnPodRestart")
    leader = container(group["leaderTemplate"]["spec"], "engine")
    worker = container(group["workerTemplate"]["spec"], "engine")
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(leader)
    assert not {"startupProbe", "readinessProbe", "livenessProbe"} & set(worker)
    assert "qwenhost.io/serves" not in group["workerTemplate"]["metadata"]["labels"]
    assert of_kind(MULTI_NODE, "PodDisruptionBudget")[0]["spec"]["maxUnavailable"] == 2
    # A worker that went at once would take the leader's running requests with it.
    assert worker["lifecycle"]["preStop"]["sleep"]["seconds"] == 135


def test_claim_has_alternatives() -> None:
    """DRA: one request whose alternatives come in order, one product, shared by planner and engine."""
    case = CASES["dra"]
    spec = of_kind(case, "ResourceClaimTemplate")[0]["spec"]["spec"]["devices"]
    rungs = spec["requests"][0]["firstAvailable"]
    assert [rung["count"] for rung in rungs] == sorted(rung["count"] for rung in rungs)
    assert all('.type == "gpu"' in rung["selectors"][0]["cel"]["expression"] for rung in rungs)
    assert spec["constraints"] == [{"matchAttribute": "gpu.nvidia.com/productName", "requests": ["gpus"]}]
    for name in ("plan", "engine"):
        assert container(engine(case), name)["resources"]["claims"] == [{"name": "gpus"}]
        assert "nvidia.com/gpu" not in container(engine(case), name)["resources"]["limits"]


def test_ladder_of_values() -> None:
    """A ladder of the user's is taken as it is, quantities and all."""
    text = helm(
        "template",
        "qwen",
        str(CHART),
        "--kube-version",
        "1.36",
        "--set",
        "plan.mode=dra",
        "--set-json",
        'dra.ladder=[{"name":"h200","count":2,"minMemory":"138Gi","minComputeCapability":"9.0"}]',
        "--show-only",
        "templates/resourceclaimtemplate.yaml",
    )
    assert 'memory.compareTo(quantity("138Gi")) >= 0' in text
    assert 'cudaComputeCapability.compareTo(semver("9.0.0")) >= 0' in text


def test_planner_gets_the_engines_gpus() -> None:
    """The init container asks for as many GPUs, which count once, and is told where the weights lie."""
    case = CASES["init-container"]
    assert container(engine(case), "plan")["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert container(engine(case), "plan")["args"] == [
        "--request",
        "/etc/qwenhost/init.yaml",
        "--output",
        "/plan/vllm.yaml",
    ]
    told = plan(case, "init.yaml")
    assert told["checkpoints"][0]["path"].startswith("/weights/qwen3-5-")
    assert isinstance(told["checkpoints"][0]["weightsBytes"], int)


def test_routes_lead_to_the_api_alone() -> None:
    """/v1 and nothing else, for answers that take half an hour."""
    rule = of_kind(CASES["httproute"], "HTTPRoute")[0]["spec"]["rules"][0]
    assert [one["path"] for one in rule["matches"]] == [{"type": "PathPrefix", "value": "/v1"}]
    assert rule["timeouts"] == {"request": "1800s", "backendRequest": "1800s"}
    ingress = of_kind(CASES["ingress"], "Ingress")[0]["spec"]["rules"][0]["http"]["paths"]
    assert [one["path"] for one in ingress] == ["/v1"]


def test_pools_share_by_throughput() -> None:
    """Behind an HTTPRoute, pools get requests in proportion to what the plan predicts of them."""
    refs = of_kind(CASES["httproute-weighted"], "HTTPRoute")[0]["spec"]["rules"][0]["backendRefs"]
    assert [one["name"] for one in refs] == ["qwen-qwenhost-h200", "qwen-qwenhost-h100-80gb"]
    assert all(one["weight"] > 1000 for one in refs)
    services = {one["metadata"]["name"] for one in of_kind(CASES["httproute-weighted"], "Service")}
    assert services == {"qwen-qwenhost", "qwen-qwenhost-h200", "qwen-qwenhost-h100-80gb"}


def test_nothing_gets_in_or_out_unnamed() -> None:
    """Default deny for every pod; engines talk to DNS alone, the download to 443."""
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(DEFAULT, "NetworkPolicy")}
    assert policies["qwen-qwenhost-deny"]["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(policies["qwen-qwenhost-deny"])
    assert [
        port["port"] for rule in policies["qwen-qwenhost-engine"]["egress"] for port in rule["ports"]
    ] == [53, 53]
    assert policies["qwen-qwenhost-weights"]["egress"][-1] == {"ports": [{"protocol": "TCP", "port": 443}]}


def test_air_gap_asks_nobody_outside() -> None:
    """Every image is from the registry inside, by digest; nothing gets out but to DNS and the engine."""
    case = CASES["example-airgapped"]
    images = {
        one["image"]
        for pod in pod_templates(case)
        for one in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
    }
    assert all(
        image.startswith("registry.internal.example:5000/") and "@sha256:" in image for image in images
    )
    ports = {
        port["port"]
        for one in of_kind(case, "NetworkPolicy")
        for rule in one["spec"].get("egress", [])
        for port in rule["ports"]
    }
    assert ports == {53, 8000}


def test_keys_are_files() -> None:
    """No key and no token in an environment variable; the Secret's files are the group's to read."""
    for name in ("default", "weights-existing-claim", "s3"):
        for pod in pod_templates(CASES[name]):
            for one in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
                assert not any("secretKeyRef" in json.dumps(env) for env in one.get("env", []))
            for volume in pod["spec"]["volumes"]:
                assert volume.get("secret", {}).get("defaultMode", 0o440) == 0o440


def test_drawn_keys_fit_each_other() -> None:
    """client-key and metrics-key are those of the key file."""
    secret = of_kind(DEFAULT, "Secret")[0]["stringData"]
    assert secret["keys"].split() == ["client:", secret["client-key"], "metrics:", secret["metrics-key"]]
    assert len(secret["client-key"]) == 40


def test_scaling_follows_the_plan() -> None:
    """Thresholds from the saturation point, the most pods from the GPUs, down slower than up starts."""
    spec = of_kind(CASES["keda"], "ScaledObject")[0]["spec"]
    assert spec["maxReplicaCount"] == 4
    assert (
        of_kind(sets("gpus=8xH100", "autoscaling.type=keda", "autoscaling.maxGpus=17"), "ScaledObject")[0][
            "spec"
        ]["maxReplicaCount"]
        == 2
    )
    budget = container(engine(CASES["keda"]), "engine")["startupProbe"]["failureThreshold"] * 10
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= budget - 10
    assert "replicas" not in of_kind(CASES["keda"], "Deployment")[0]["spec"]
    target = of_kind(CASES["keda-multi-node"], "ScaledObject")[0]["spec"]["scaleTargetRef"]
    assert target["kind"] == "LeaderWorkerSet"


def test_metrics_are_scraped_with_a_key() -> None:
    """The monitor brings the metrics key; the endpoint picker's exception is asked for by name."""
    monitor = of_kind(CASES["monitoring"], "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0]
    assert monitor["authorization"]["credentials"] == {"name": "qwen-qwenhost-keys", "key": "metrics-key"}
    picked = container(engine(CASES["inferencepool"]), "engine")["env"]
    assert {"name": "QWENHOST_OPEN_METRICS", "value": "1"} in picked


def test_alerts_are_of_this_release() -> None:
    """No placeholder is left, every alert carries the labels asked for, the plan's figures are recorded."""
    rule = of_kind(CASES["monitoring"], "PrometheusRule")[0]
    text = json.dumps(rule)
    assert "@selector@" not in text
    assert "@ttftSeconds@" not in text
    assert 'namespace=\\"qwen\\",release=\\"qwen\\"' in text
    recorded = {one["record"] for one in rule["spec"]["groups"][0]["rules"]}
    assert recorded == {
        "qwenhost:pool_usd_per_hour",
        "qwenhost:pool_concurrency",
        "qwenhost:pool_output_tokens_per_second",
        "qwenhost:pool_gpus",
    }


def test_tests_leave_out_what_the_plan_cannot_see() -> None:
    """The image test runs where the plan keeps the vision tower."""
    assert "image" in of_kind(DEFAULT, "Job", "-test")[0]["spec"]["template"]["spec"]["containers"][0]["args"]
    blind = of_kind(sets("tests.image=false"), "Job", "-test")[0]["spec"]["template"]["spec"]["containers"][0]
    assert "image" not in blind["args"]
