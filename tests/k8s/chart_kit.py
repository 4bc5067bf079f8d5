"""Rendering the chart with the real helm, and the cases that every check goes through."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "k8s" / "chart"
EXAMPLES = ROOT / "k8s" / "examples"
HELM = Path(sys.executable).parent / "helm"
CLUSTER_VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
RELEASE = "qwen"

Case = tuple[str, ...]
"""Arguments of helm template: -f FILE, --set KEY=VALUE."""


def sets(*assignments: str) -> Case:
    """``--set`` of each; the GPUs are 2xH200 unless one says otherwise."""
    says = any(a.startswith(("gpus=", "plan.mode=dra")) for a in assignments)
    given = assignments if says else ("gpus=2xH200", *assignments)
    return tuple(word for assignment in given for word in ("--set", assignment))


KEDA = ("autoscaling.type=keda", "autoscaling.maxGpus=8")
GATEWAY = ("route.httpRoute.parentRefs[0].name=public",)
MULTI_NODE = ("-f", str(EXAMPLES / "multi-node-2x4xh100.yaml"))
TOGGLES: dict[str, Case] = {
    "default": sets(),
    "spaces": sets("gpus=2x RTX PRO 6000"),
    "mirror": sets("model.source.type=mirror", "model.source.mirror.endpoint=https://hub.example.net"),
    "s3": sets(
        "model.source.type=s3",
        "model.source.s3.uri=s3://models/qwen",
        "model.source.s3.existingSecret=s3",
        "model.source.s3.endpoint=https://s3.example.net",
    ),
    "pvc-source": sets(
        "model.source.type=pvc", "model.source.pvc.claimName=models", "model.source.pvc.path=qwen"
    ),
    "oci": sets("model.source.type=oci", "model.source.oci.reference=r.example.net/qwen@sha256:" + "0" * 64),
    "host-path": sets("model.source.type=hostPath", "model.source.hostPath.path=/models/qwen"),
    "weights-emptydir": sets("weights.type=emptyDir"),
    "weights-one-node": sets("weights.claim.accessMode=ReadWriteOnce"),
    "weights-existing-claim": sets("weights.claim.existing=mine", "weights.hubToken.existingSecret=hub"),
    "compile-cache-pvc": sets("compileCache.type=pvc"),
    "compile-cache-host": sets("compileCache.type=hostPath"),
    "tls-secret": sets(
        "tls.existingSecret=cert", "monitoring.podMonitor.enabled=true", "benchmark.enabled=true"
    ),
    "tls-cert-manager": sets(
        "tls.certManager.issuerRef.name=ca", "tls.certManager.issuerRef.kind=ClusterIssuer"
    ),
    "ingress": sets(
        "route.type=ingress", "route.hosts[0]=llm.example.net", "route.ingress.tlsSecretName=llm"
    ),
    "httproute": sets("route.type=httproute", "route.hosts[0]=llm.example.net", *GATEWAY),
    "httproute-weighted": sets("gpus=2xH200\\,8xH100", "route.type=httproute", *GATEWAY),
    "inferencepool": sets("route.type=inferencepool", "auth.openMetrics=true", *GATEWAY),
    "inferencepool-own-picker": sets(
        "route.type=inferencepool",
        "auth.openMetrics=true",
        "route.inferencePool.epp.create=false",
        "route.inferencePool.epp.name=mine",
        *GATEWAY,
    ),
    "keda": sets(*KEDA),
    "keda-to-zero": sets(
        *KEDA,
        "autoscaling.minReplicas=0",
        "autoscaling.authenticationRef=prometheus",
        "autoscaling.scaleToZero.query=sum(envoy_cluster_upstream_rq_active)",
    ),
    "keda-multi-node": (*MULTI_NODE, "--set", "autoscaling.type=keda"),
    "hpa": sets("autoscaling.type=hpa"),
    "multi-node-ray": (*MULTI_NODE, "--set", "multiNode.backend=ray"),
    "multi-node-efa": (
        *MULTI_NODE,
        "--set",
        "multiNode.resources.vpc\\.amazonaws\\.com/efa=16",
        "--set",
        "multiNode.env.FI_PROVIDER=efa",
        "--set",
        "multiNode.exclusiveTopology=topology.kubernetes.io/zone",
    ),
    "monitoring": sets(
        "monitoring.podMonitor.enabled=true",
        "monitoring.rules.enabled=true",
        "monitoring.dashboards.enabled=true",
        "monitoring.rules.labels.release=prometheus",
        "monitoring.tracing.endpoint=http://otel:4317",
    ),
    "dra": sets("plan.mode=dra"),
    "auto": sets("gpus=auto", "plan.auto.gpusPerNode=8"),
    "init-container": sets("plan.mode=initContainer"),
    "benchmark": sets("benchmark.enabled=true"),
    "spare-gpus": sets("rollout.spareGpus=true"),
    "scheduling": sets(
        "scheduling.priorityClass.create=true",
        "scheduling.runtimeClassName=nvidia",
        "scheduling.nodeSelector.pool=gpu",
        "scheduling.schedulerName=volcano",
    ),
    "own-objects": sets(
        "auth.existingSecret=keys",
        "serviceAccount.create=false",
        "serviceAccount.name=mine",
        "image.pullSecrets[0].name=registry",
        "commonLabels.team=search",
    ),
    "limits": sets(
        "engine.maxRequestsPerMinute=60",
        "engine.extraArgs[0]=--enforce-eager",
        "engine.extraEnv.NCCL_DEBUG=INFO",
    ),
    "clients": sets(
        "networkPolicy.clients[0].namespaceSelector.matchLabels.team=web",
        "networkPolicy.egress[0].to[0].ipBlock.cidr=10.0.0.0/8",
        "benchmark.enabled=true",
    ),
    "all-off": sets(
        "networkPolicy.enabled=false",
        "podDisruptionBudget.enabled=false",
        "tests.enabled=false",
        "probes.stallSeconds=0",
        "serviceAccount.create=false",
        "scheduling.topologyKey=",
    ),
    "node-port": sets("service.type=NodePort", "service.sessionAffinity=ClientIP", "service.port=8000"),
    "read-only-root": sets("security.readOnlyRootFilesystem=true", "image.digest=sha256:" + "a" * 64),
    "extra-object": sets(
        "extraObjects[0].apiVersion=v1", "extraObjects[0].kind=ConfigMap", "extraObjects[0].metadata.name=x"
    ),
}
FABRICS: dict[str, Case] = {
    f"fabric-{path.stem}": (*MULTI_NODE, "-f", str(path))
    for path in sorted((EXAMPLES / "fabric").glob("*.yaml"))
}
CASES: dict[str, Case] = (
    TOGGLES
    | FABRICS
    | {f"example-{path.stem}": ("-f", str(path)) for path in sorted(EXAMPLES.glob("*.yaml"))}
)
NEEDS_VERSION = {"dra": "1.34", "example-dra-ladder": "1.34", "oci": "1.33", "example-airgapped": "1.33"}
"""The first cluster that takes a case; below it the chart refuses."""


class RefusedError(Exception):
    """What helm said in place of manifests."""


def versions(case: str) -> tuple[str, ...]:
    """Clusters that take a case."""
    first = NEEDS_VERSION.get(case, CLUSTER_VERSIONS[0])
    return CLUSTER_VERSIONS[CLUSTER_VERSIONS.index(first) :]


def helm(*arguments: str) -> str:
    """What helm prints.

    Raises:
        RefusedError: it ended with an error.
    """
    done = subprocess.run([HELM, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RefusedError(done.stderr)
    return done.stdout


@functools.cache
def rendered(case: Case, version: str = "1.36") -> str:
    """The manifests of a release called qwen in the namespace qwen."""
    return helm("template", RELEASE, str(CHART), "--namespace", "qwen", "--kube-version", version, *case)


@functools.cache
def objects(case: Case, version: str = "1.36") -> list[dict[str, Any]]:
    """The same, decoded."""
    return [one for one in yaml.load_all(rendered(case, version), Loader=yaml.CSafeLoader) if one]


def of_kind(case: Case, kind: str, name: str = "") -> list[dict[str, Any]]:
    """Objects of a kind whose name ends so."""
    return [one for one in objects(case) if one["kind"] == kind and one["metadata"]["name"].endswith(name)]


def pod_templates(case: Case) -> list[dict[str, Any]]:
    """Every pod's metadata and spec, with the name of what makes it."""
    found = []
    for one in objects(case):
        spec = one.get("spec", {})
        if one["kind"] in ("Deployment", "Job"):
            found.append({"of": one["metadata"]["name"], **spec["template"]})
        elif one["kind"] == "LeaderWorkerSet":
            group, name = spec["leaderWorkerTemplate"], one["metadata"]["name"]
            found += [{"of": name, **group[role]} for role in ("leaderTemplate", "workerTemplate")]
    return found


def engine(case: Case) -> dict[str, Any]:
    """The pod spec of the first engine."""
    return next(
        one["spec"]
        for one in pod_templates(case)
        if one["metadata"]["labels"]["app.kubernetes.io/component"] == "engine"
    )


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    """A container of a pod, init containers among them."""
    return next(one for one in [*pod["containers"], *pod.get("initContainers", [])] if one["name"] == name)
