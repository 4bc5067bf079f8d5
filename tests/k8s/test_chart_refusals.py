"""A wrong value ends the install with a sentence that names the key and what would do."""

from __future__ import annotations

import pytest
from chart_kit import EXAMPLES, Case, RefusedError, rendered, sets

MULTI_NODE = ("-f", str(EXAMPLES / "multi-node-2x4xh100.yaml"))
KEDA = "autoscaling.type=keda"
SENTENCES: list[tuple[Case, str]] = [
    ((), "gpus: say what GPUs this release may use, for example --set gpus=2xH200"),
    (sets("gpus=3xH300"), "gpus=3xH300: no plan for these GPUs in the chart. It has: "),
    (sets("gpus=auto"), "gpus=auto: no node of this cluster offers nvidia.com/gpu"),
    ((*MULTI_NODE, "--set", "gpus=2xH200"), "gpus and pools: both say what GPUs there are"),
    ((*sets("plan.mode=dra"), "--set", "gpus=2xH200"), "plan.mode=dra takes its GPUs from dra.ladder"),
    (sets("gpu=2xH200"), "Additional property gpu is not allowed"),
    (sets("image.digest=latest"), "image.digest: Does not match pattern"),
    (sets("model.revision=main"), "model.revision: Does not match pattern"),
    (sets("model.source.type=ftp"), "model.source.type: model.source.type must be one of the following"),
    (sets("model.source.type=s3"), "model.source.type=s3 needs model.source.s3.uri."),
    (sets("drain.preStopSeconds=0"), "drain.preStopSeconds: Must be greater than or equal to 1"),
    (sets("drain.marginSeconds=0"), "drain.marginSeconds: Must be greater than or equal to 5"),
    (sets("probes.liveness.timeoutSeconds=1"), "a saturated engine answers /health later than that"),
    (sets("shmSize=96Gi"), "shmSize=96Gi: /dev/shm counts against the memory limit of h200"),
    (sets("gpus=2xH200\\,2xH200"), "pools[h200]: two pools have this name"),
    ((*MULTI_NODE, "--set", "pools[0].gpusPerNode=8"), "pools[h100]: nodes x gpusPerNode is 16"),
    (
        sets("weights.claim.accessMode=ReadWriteOnce", KEDA),
        "one node may mount the claim, but there are up to 4 pods",
    ),
    (
        sets("weights.claim.accessMode=ReadWriteOnce", "weights.download.mode=job"),
        "the engine's pod holds it while the Job waits",
    ),
    (sets("weights.type=emptyDir", "weights.download.mode=job"), "a Job cannot fill an emptyDir"),
    (sets("gpus=1xH100", "weights.type=emptyDir"), "model.revision: give the commit of Intel/"),
    ((*MULTI_NODE, "--set", "weights.type=emptyDir"), "every pod of a group would fetch the weights"),
    (
        sets("compileCache.type=pvc", "compileCache.pvc.accessMode=ReadWriteOnce", KEDA),
        "compileCache.pvc.accessMode=ReadWriteOnce: one node",
    ),
    (sets("route.type=ingress"), "route.type=ingress needs route.hosts"),
    (sets("route.type=httproute"), "route.type=httproute needs route.httpRoute.parentRefs"),
    (sets("route.paths[0]=/"), "route.paths: / leads to more than the API"),
    (sets("route.type=inferencepool", "route.httpRoute.parentRefs[0].name=g"), "needs auth.openMetrics=true"),
    (
        sets("auth.openMetrics=true", "networkPolicy.enabled=false"),
        "anyone in the cluster could read /metrics",
    ),
    (
        sets("tls.existingSecret=a", "tls.certManager.issuerRef.name=b"),
        "tls: existingSecret or certManager.issuerRef, not both",
    ),
    (sets("airGap.enabled=true"), "airGap.enabled with model.source.type=hub: the hub is outside"),
    (sets("airGap.enabled=true"), "airGap.enabled: give image.digest"),
    (
        sets("airGap.enabled=true", "model.source.type=mirror", "model.source.mirror.endpoint=http://m"),
        "name the mirror's peer in networkPolicy.downloadTo",
    ),
    (sets(KEDA, "autoscaling.minReplicas=5"), "autoscaling: minReplicas 5 is more than maxReplicas 4"),
    (
        sets(KEDA, "autoscaling.minReplicas=0"),
        "autoscaling.minReplicas=0 needs type keda and scaleToZero.query",
    ),
    (
        sets(KEDA, "autoscaling.scaleToZero.query=sum(vllm:num_requests_waiting)"),
        "series end with the last pod",
    ),
    (
        sets("gpus=8xH100", KEDA, "autoscaling.maxGpus=7"),
        "autoscaling.maxGpus=7: 1 replicas of the pool h100-80gb need 8",
    ),
    (sets("engine.extraArgs[0]=--api-key=secret"), "engine.extraArgs: --api-key is set by the chart"),
    (
        sets("gpus=auto", "plan.auto.gpusPerNode=8", "benchmark.enabled=true"),
        "benchmark.gpus: say what GPUs are priced",
    ),
    (sets("fullnameOverride=vllm"), "a Service named vllm* sets VLLM_PORT in every pod"),
]
POOL = """
model: {repoId: Qwen/Qwen3.5-122B-A10B-FP8, weightsBytes: 127150000000}
pools:
  - name: h200
    gpusPerNode: 2
    accelerator: {ACCELERATOR}
    engine: {config: {CONFIG}, env: {ENV}}
"""
WRONG_POOLS = [
    ("resource: nvidia.com/mig-1g.10gb", "", "", "a slice of a GPU cannot hold this model's weights"),
    ("resource: nvidia.com/gpu.shared", "", "", "a time-sliced GPU shares its memory with others"),
    ("products: [NVIDIA-H200-SHARED]", "", "", "NVIDIA-H200-SHARED is a part of a GPU"),
    ("products: [NVIDIA-H200-MIG-1g.18gb]", "", "", "NVIDIA-H200-MIG-1g.18gb is a part of a GPU"),
    ("", "tensor-parallel-size: 4", "", "nodes x gpusPerNode is 2, but tensor-parallel-size"),
    ("", "tensor-parallel-size: 2", "", "say how many requests run at once"),
    ("", "model: x", "", "pools[h200].engine.config.model: the chart sets it; remove it."),
    ("", "max_num_seqs: 2", "", "max_num_seqs"),
    ("", "", "HF_TOKEN: hf_x", "values hold no secrets"),
]


@pytest.mark.parametrize(("case", "sentence"), SENTENCES, ids=[sentence[:40] for _, sentence in SENTENCES])
def test_wrong_values_are_refused_in_a_sentence(case: Case, sentence: str) -> None:
    """The key, what was expected, what to do; nothing is rendered."""
    with pytest.raises(RefusedError) as refused:
        rendered(case)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("accelerator", "config", "env", "sentence"), WRONG_POOLS)
def test_wrong_pools_are_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, accelerator: str, config: str, env: str, sentence: str
) -> None:
    """Slices of GPUs, layouts that leave GPUs idle, the chart's own flags, secrets."""
    text = POOL.replace("{ACCELERATOR}", "{" + accelerator + "}")
    text = text.replace("{CONFIG}", "{" + config + "}").replace("{ENV}", "{" + env + "}")
    file = tmp_path_factory.mktemp("pool") / "values.yaml"
    file.write_text(text)
    with pytest.raises(RefusedError) as refused:
        rendered(("-f", str(file)))
    assert sentence in str(refused.value)


def test_all_wrong_values_are_named_at_once() -> None:
    """Two mistakes, two sentences, one attempt."""
    with pytest.raises(RefusedError) as refused:
        rendered(sets("shmSize=96Gi", "route.type=ingress"))
    assert "shmSize=96Gi" in str(refused.value)
    assert "route.hosts" in str(refused.value)
