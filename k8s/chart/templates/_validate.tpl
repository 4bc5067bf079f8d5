{{/*
What the schema cannot say: one sentence each, with the key, and all of them at once.
*/}}
{{- define "qwenhost.validate" -}}
{{- $v := .Values -}}
{{- $pools := fromJsonArray (include "qwenhost.pools" .) -}}
{{- $wrong := concat
  (fromJsonArray (include "qwenhost.wrongPools" (dict "root" . "pools" $pools)))
  (fromJsonArray (include "qwenhost.wrongWeights" (dict "root" . "pools" $pools)))
  (fromJsonArray (include "qwenhost.wrongTraffic" .))
  (fromJsonArray (include "qwenhost.wrongRest" (dict "root" . "pools" $pools))) -}}
{{- if $wrong -}}
{{- fail (printf "\n\n%s\n" (join "\n" $wrong)) -}}
{{- end -}}
{{- end -}}

{{- define "qwenhost.wrongPools" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
{{- $wrong := list -}}
{{- $names := dict -}}
{{- $own := list "model" "host" "port" "served-model-name" "revision" "api-key" "middleware" "ssl-certfile" "ssl-keyfile" "shutdown-timeout" "nnodes" "node-rank" "master-addr" "headless" "hf-token" -}}
{{- range $p := .pools -}}
{{- $at := printf "pools[%s]" $p.name -}}
{{- if hasKey $names $p.name -}}{{- $wrong = append $wrong (printf "%s: two pools have this name; give each its own." $at) -}}{{- end -}}
{{- $_ := set $names $p.name true -}}
{{- if and (ne $p.mode "dra") (lt (int $p.gpusPerNode) 1) -}}{{- $wrong = append $wrong (printf "%s.gpusPerNode: say how many GPUs a pod gets." $at) -}}{{- end -}}
{{- if contains "mig-" $p.accelerator.resource -}}
{{- $wrong = append $wrong (printf "%s.accelerator.resource=%s: a slice of a GPU cannot hold this model's weights, and tensor parallelism does not run over slices. Use whole GPUs: nvidia.com/gpu." $at $p.accelerator.resource) -}}
{{- end -}}
{{- if hasSuffix ".shared" $p.accelerator.resource -}}
{{- $wrong = append $wrong (printf "%s.accelerator.resource=%s: a time-sliced GPU shares its memory with others, which no plan can count on. Use whole GPUs: nvidia.com/gpu." $at $p.accelerator.resource) -}}
{{- end -}}
{{- range $p.accelerator.products -}}
{{- if or (contains "-MIG-" .) (hasSuffix "-SHARED" .) -}}
{{- $wrong = append $wrong (printf "%s.accelerator.products: %s is a part of a GPU, by MIG or time-slicing; this model needs whole ones." $at .) -}}
{{- end -}}
{{- end -}}
{{- range $key := $own -}}
{{- if hasKey $p.config $key -}}{{- $wrong = append $wrong (printf "%s.engine.config.%s: the chart sets it; remove it." $at $key) -}}{{- end -}}
{{- end -}}
{{- if eq $p.mode "pinned" -}}
{{- $tp := int (get $p.config "tensor-parallel-size" | default 1) -}}
{{- $pp := int (get $p.config "pipeline-parallel-size" | default 1) -}}
{{- $dp := int (get $p.config "data-parallel-size" | default 1) -}}
{{- $gpus := int (mul $p.nodes $p.gpusPerNode) -}}
{{- if ne (mul $tp $pp $dp | int) $gpus -}}
{{- $wrong = append $wrong (printf "%s: nodes x gpusPerNode is %d, but tensor-parallel-size x pipeline-parallel-size x data-parallel-size is %d x %d x %d = %d; idle or missing GPUs. Change one of them, or let `qwenhost k8s plan` write the pool." $at $gpus $tp $pp $dp (mul $tp $pp $dp)) -}}
{{- end -}}
{{- if not (get $p.config "max-num-seqs") -}}
{{- $wrong = append $wrong (printf "%s.engine.config.max-num-seqs: say how many requests run at once; vLLM's default of 1024 ends the start of this model on many GPUs." $at) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := $p.env -}}
{{- if regexMatch "(?i)(TOKEN|SECRET|PASSWORD|API_?KEY|_KEY)$" $name -}}{{- $wrong = append $wrong (printf "%s.engine.env.%s: values hold no secrets; use a Secret (auth.existingSecret, weights.hubToken)." $at $name) -}}{{- end -}}
{{- end -}}
{{- $limit := include "qwenhost.mebibytes" $p.resources.limits.memory -}}
{{- if ge (int64 (include "qwenhost.mebibytes" $v.shmSize)) (int64 $limit) -}}
{{- $wrong = append $wrong (printf "shmSize=%s: /dev/shm counts against the memory limit of %s, which is %s; raise resources.limits.memory." $v.shmSize $p.name $p.resources.limits.memory) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.plan.mode "dra") (semverCompare "<1.34.0-0" $root.Capabilities.KubeVersion.Version) -}}
{{- $wrong = append $wrong (printf "plan.mode=dra: Dynamic Resource Allocation (resource.k8s.io/v1) needs Kubernetes 1.34, this is %s. Use pools, for example --set gpus=2xH200." $root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- range $v.engine.extraArgs -}}
{{- $flag := first (splitList "=" .) | replace "_" "-" -}}
{{- if has (trimPrefix "--" $flag) $own -}}{{- $wrong = append $wrong (printf "engine.extraArgs: %s is set by the chart; remove it." $flag) -}}{{- end -}}
{{- end -}}
{{- toJson $wrong -}}
{{- end -}}

{{- define "qwenhost.wrongWeights" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
{{- $source := $v.model.source -}}
{{- $wrong := list -}}
{{- $needed := dict "mirror" "endpoint" "s3" "uri" "pvc" "claimName" "oci" "reference" "hostPath" "path" -}}
{{- with get $needed $source.type -}}
{{- if not (get (get $source $source.type) .) -}}
{{- $wrong = append $wrong (printf "model.source.type=%s needs model.source.%s.%s." $source.type $source.type .) -}}
{{- end -}}
{{- end -}}
{{- range $p := .pools -}}
{{- range $p.checkpoints -}}
{{- if and .fetched (not .repoId) -}}
{{- $wrong = append $wrong (printf "model.repoId: say which repository the pool %s serves, for example Qwen/Qwen3.5-122B-A10B-FP8, with its revision and weightsBytes." $p.name) -}}
{{- else if and .fetched (not .revision) (eq $v.weights.type "emptyDir") (ne $source.type "s3") -}}
{{- $wrong = append $wrong (printf "model.revision: give the commit of %s, 40 hexadecimal digits; with weights.type=emptyDir every pod would fetch whatever its branch holds by then." .repoId) -}}
{{- end -}}
{{- end -}}
{{- if lt (int64 $p.weightsBytes) 1000000000 -}}
{{- $wrong = append $wrong (printf "model.weightsBytes: say how large the weights of the pool %s are; the claim and the start-up budget are computed from it." $p.name) -}}
{{- end -}}
{{- end -}}
{{- $pods := 0 -}}
{{- $groups := false -}}
{{- range .pools -}}{{- $pods = add $pods (mul .replicas .nodes) -}}{{- if gt (int .nodes) 1 -}}{{- $groups = true -}}{{- end -}}{{- end -}}
{{- if ne $v.autoscaling.type "none" -}}{{- $pods = max $pods (int $v.autoscaling.maxReplicas) -}}{{- end -}}
{{- $mode := include "qwenhost.downloadMode" $root -}}
{{- $single := and (eq $v.weights.type "pvc") (hasPrefix "ReadWriteOnce" $v.weights.claim.accessMode) -}}
{{- if and $single (has $mode (list "job" "initContainer")) (gt (int $pods) 1) -}}
{{- $wrong = append $wrong (printf "weights.claim.accessMode=%s: one node may mount the claim, but there are up to %d pods. Use ReadWriteMany, or another source of the weights." $v.weights.claim.accessMode (int $pods)) -}}
{{- end -}}
{{- if and $single (eq $mode "job") -}}
{{- $wrong = append $wrong "weights.download.mode=job with a claim that one node may mount: the engine's pod holds it while the Job waits for it. Use initContainer or auto." -}}
{{- end -}}
{{- if and $groups (eq $v.weights.type "emptyDir") (eq $mode "initContainer") -}}
{{- $wrong = append $wrong "weights.type=emptyDir with nodes > 1: every pod of a group would fetch the weights. Use a claim with ReadWriteMany, an image volume or a host path." -}}
{{- end -}}
{{- if and (eq $v.weights.type "emptyDir") (eq $v.weights.download.mode "job") -}}
{{- $wrong = append $wrong "weights.download.mode=job: a Job cannot fill an emptyDir; use weights.type=pvc or mode auto." -}}
{{- end -}}
{{- if and (eq $v.compileCache.type "pvc") (not $v.compileCache.pvc.existing) (hasPrefix "ReadWriteOnce" $v.compileCache.pvc.accessMode) (gt (int $pods) 1) -}}
{{- $wrong = append $wrong (printf "compileCache.pvc.accessMode=%s: one node may mount the claim, but there are up to %d pods. Use ReadWriteMany, or compileCache.type=emptyDir." $v.compileCache.pvc.accessMode (int $pods)) -}}
{{- end -}}
{{- if and (eq $source.type "oci") (semverCompare "<1.33.0-0" $root.Capabilities.KubeVersion.Version) -}}
{{- $wrong = append $wrong (printf "model.source.type=oci: image volumes need Kubernetes 1.33, this is %s." $root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if $v.airGap.enabled -}}
{{- if eq $source.type "hub" -}}
{{- $wrong = append $wrong "airGap.enabled with model.source.type=hub: the hub is outside. Use mirror, s3, pvc, oci or hostPath." -}}
{{- else if and (has $source.type (list "mirror" "s3")) $v.networkPolicy.enabled (not $v.networkPolicy.downloadTo) -}}
{{- $wrong = append $wrong (printf "airGap.enabled with model.source.type=%s: name the %s's peer in networkPolicy.downloadTo, everything else stays shut." $source.type $source.type) -}}
{{- end -}}
{{- if not $v.image.digest -}}
{{- $wrong = append $wrong "airGap.enabled: give image.digest, so that the mirror's image is the one that was tested." -}}
{{- end -}}
{{- end -}}
{{- toJson (uniq $wrong) -}}
{{- end -}}

{{- define "qwenhost.wrongTraffic" -}}
{{- $v := .Values -}}
{{- $r := $v.route -}}
{{- $wrong := list -}}
{{- if and (eq $r.type "ingress") (not $r.hosts) -}}{{- $wrong = append $wrong "route.type=ingress needs route.hosts: without one every name would lead to the engine." -}}{{- end -}}
{{- if and (has $r.type (list "httproute" "inferencepool")) (not $r.httpRoute.parentRefs) -}}
{{- $wrong = append $wrong (printf "route.type=%s needs route.httpRoute.parentRefs: the Gateway to which the route belongs." $r.type) -}}
{{- end -}}
{{- if eq $r.type "inferencepool" -}}
{{- $epp := $r.inferencePool.epp -}}
{{- if and (not $epp.create) (not $epp.name) -}}{{- $wrong = append $wrong "route.inferencePool.epp: create it, or give the name of yours." -}}{{- end -}}
{{- if not $v.auth.openMetrics -}}{{- $wrong = append $wrong "route.type=inferencepool needs auth.openMetrics=true: the endpoint picker reads queues from /metrics and has no key. The NetworkPolicy says who else may." -}}{{- end -}}
{{- end -}}
{{- if and $v.auth.openMetrics (not $v.networkPolicy.enabled) -}}
{{- $wrong = append $wrong "auth.openMetrics without networkPolicy.enabled: anyone in the cluster could read /metrics. Enable the NetworkPolicy." -}}
{{- end -}}
{{- if and $v.tls.existingSecret $v.tls.certManager.issuerRef -}}{{- $wrong = append $wrong "tls: existingSecret or certManager.issuerRef, not both." -}}{{- end -}}
{{- range $r.paths -}}
{{- if not (hasPrefix "/v1" .) -}}{{- if has . (list "/" "/metrics" "/invocations") -}}
{{- $wrong = append $wrong (printf "route.paths: %s leads to more than the API; use /v1." .) -}}
{{- end -}}{{- end -}}
{{- end -}}
{{- toJson $wrong -}}
{{- end -}}

{{- define "qwenhost.wrongRest" -}}
{{- $v := .root.Values -}}
{{- $a := $v.autoscaling -}}
{{- $wrong := list -}}
{{- if ne $a.type "none" -}}
{{- if gt (int $a.minReplicas) (int $a.maxReplicas) -}}{{- $wrong = append $wrong (printf "autoscaling: minReplicas %d is more than maxReplicas %d." (int $a.minReplicas) (int $a.maxReplicas)) -}}{{- end -}}
{{- if and (eq (int $a.minReplicas) 0) (or (ne $a.type "keda") (not $a.scaleToZero.query)) -}}
{{- $wrong = append $wrong "autoscaling.minReplicas=0 needs type keda and scaleToZero.query over a metric that exists with no pod, such as the gateway's requests: vLLM's own end with the last pod, and nothing would start it again." -}}
{{- end -}}
{{- if and $a.scaleToZero.query (or (contains "vllm:" $a.scaleToZero.query) (contains "qwenhost:" $a.scaleToZero.query)) -}}
{{- $wrong = append $wrong "autoscaling.scaleToZero.query: vllm: and qwenhost: series end with the last pod; use the gateway's." -}}
{{- end -}}
{{- range .pools -}}
{{- $gpus := int (mul .nodes .gpusPerNode) -}}
{{- if and $a.maxGpus (lt (int $a.maxGpus) (mul (max 1 (int $a.minReplicas)) $gpus | int)) -}}
{{- $wrong = append $wrong (printf "autoscaling.maxGpus=%d: %d replicas of the pool %s need %d." (int $a.maxGpus) (max 1 (int $a.minReplicas)) .name (int (mul (max 1 (int $a.minReplicas)) $gpus))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if le (int $v.probes.liveness.timeoutSeconds) 1 -}}
{{- $wrong = append $wrong "probes.liveness.timeoutSeconds: a saturated engine answers /health later than that and would be ended; use 15." -}}
{{- end -}}
{{- if and $v.benchmark.enabled (not (or $v.benchmark.gpus (and $v.gpus (ne $v.gpus "auto") (not (contains "," $v.gpus))))) -}}
{{- $wrong = append $wrong "benchmark.gpus: say what GPUs are priced, for example 2xH200." -}}
{{- end -}}
{{- toJson $wrong -}}
{{- end -}}

{{/* 16Gi as 16384; Mi, Gi and Ti alone, which the schema sees to. */}}
{{- define "qwenhost.mebibytes" -}}
{{- $number := int64 (regexFind "^[0-9]+" .) -}}
{{- if hasSuffix "Ti" . -}}{{ mul $number 1048576 }}
{{- else if hasSuffix "Gi" . -}}{{ mul $number 1024 }}
{{- else -}}{{ $number }}
{{- end -}}
{{- end -}}
