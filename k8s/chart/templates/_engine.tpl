{{/*
The engine's pod, for a Deployment and for leader and worker of a LeaderWorkerSet.
Dict: root, pool, role (single, leader or worker).
*/}}
{{- define "qwenhost.enginePod" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
{{- $p := .pool -}}
metadata:
  annotations:
    kubectl.kubernetes.io/default-container: engine
    qwenhost.io/checksum-plan: {{ include "qwenhost.planFile" . | sha256sum }}
    qwenhost.io/checksum-scripts: {{ ($root.Files.Glob "files/scripts/*").AsConfig | sha256sum }}
    qwenhost.io/startup-seconds: {{ $p.budgetSeconds | quote }}
    {{- with $p.report }}
    qwenhost.io/plan: {{ trim . | quote }}
    {{- end }}
    {{- with $v.scheduling.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "qwenhost.selector" $root | nindent 4 }}
    app.kubernetes.io/component: engine
    qwenhost.io/pool: {{ $p.name }}
    {{- if ne .role "worker" }}
    qwenhost.io/serves: "true"
    {{- end }}
    {{- with $v.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "qwenhost.podSecurity" $root | nindent 2 }}
  {{- include "qwenhost.scheduling" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ add $v.drain.preStopSeconds $v.drain.requestSeconds $v.drain.marginSeconds }}
  {{- if eq $p.mode "dra" }}
  resourceClaims:
    - {name: gpus, resourceClaimTemplateName: {{ $p.fullname }}}
  {{- end }}
  initContainers:
    {{- include "qwenhost.weightsGate" . | nindent 4 }}
    {{- if ne $p.mode "pinned" }}
    {{- include "qwenhost.planContainer" . | nindent 4 }}
    {{- end }}
  containers:
    {{- include "qwenhost.engineContainer" . | nindent 4 }}
  volumes:
    {{- include "qwenhost.engineVolumes" . | nindent 4 }}
{{- end -}}

{{/* Init containers that see to the weights: fetch, wait, or check what is there. */}}
{{- define "qwenhost.weightsGate" -}}
{{- $root := .root -}}
{{- $mode := include "qwenhost.downloadMode" $root -}}
{{- if eq $mode "initContainer" -}}
{{- range $index, $checkpoint := .pool.checkpoints -}}
{{- include "qwenhost.fetchContainers" (dict "root" $root "checkpoint" $checkpoint "index" $index) }}
{{ end -}}
{{- else -}}
- name: weights
  {{- include "qwenhost.ownContainer" $root | nindent 2 }}
  {{- if eq $mode "job" }}
  command: [/bin/sh, /scripts/wait.sh]
  args:
    {{- range .pool.checkpoints }}
    - /weights/{{ .key }}
    {{- end }}
  {{- else }}
  command: [qwenhost, fetch]
  args: [{{ .pool.model.path }}]
  terminationMessagePolicy: FallbackToLogsOnError
  {{- end }}
  env:
    {{- include "qwenhost.commonEnv" $root | nindent 4 }}
  {{- include "qwenhost.smallResources" $root | nindent 2 }}
  volumeMounts:
    - {name: weights, mountPath: /weights, readOnly: true}
    - {name: scripts, mountPath: /scripts, readOnly: true}
    - {name: tmp, mountPath: /tmp}
{{- end -}}
{{- end -}}

{{- define "qwenhost.planContainer" -}}
- name: plan
  image: {{ include "qwenhost.image" .root }}
  imagePullPolicy: {{ include "qwenhost.pullPolicy" .root }}
  {{- include "qwenhost.gpuSecurity" .root | nindent 2 }}
  command: [qwenhost, k8s, init]
  args: [--request, /etc/qwenhost/init.yaml, --output, /plan/vllm.yaml]
  env:
    {{- include "qwenhost.commonEnv" .root | nindent 4 }}
  resources:
    {{- include "qwenhost.engineResources" (dict "pool" .pool "base" (dict "requests" (dict "cpu" "500m" "memory" "512Mi") "limits" (dict "cpu" "2" "memory" "2Gi")) "fabric" dict) | nindent 4 }}
  volumeMounts:
    - {name: request, mountPath: /etc/qwenhost, readOnly: true}
    - {name: plan, mountPath: /plan}
    - {name: weights, mountPath: /weights, readOnly: true}
    - {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "qwenhost.gpuSecurity" -}}
securityContext:
  {{- toYaml .Values.security.containerSecurityContext | nindent 2 }}
  readOnlyRootFilesystem: {{ .Values.security.readOnlyRootFilesystem }}
{{- end -}}

{{/* GPUs ask for as much as they are limited to. Dict: pool, base, fabric. */}}
{{- define "qwenhost.engineResources" -}}
{{- $p := .pool -}}
requests:
  {{- toYaml .base.requests | nindent 2 }}
limits:
  {{- toYaml .base.limits | nindent 2 }}
  {{- if ne $p.mode "dra" }}
  {{ $p.accelerator.resource }}: {{ $p.gpusPerNode }}
  {{- end }}
  {{- range $name, $count := .fabric }}
  {{ $name }}: {{ $count }}
  {{- end }}
{{- if eq $p.mode "dra" }}
claims:
  - {name: gpus}
{{- end }}
{{- end -}}

{{- define "qwenhost.engineContainer" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
{{- $p := .pool -}}
{{- $tls := include "qwenhost.tlsSecretName" $root -}}
- name: engine
  image: {{ include "qwenhost.image" $root }}
  imagePullPolicy: {{ include "qwenhost.pullPolicy" $root }}
  {{- include "qwenhost.gpuSecurity" $root | nindent 2 }}
  command: [/bin/sh, /scripts/engine.sh]
  args:
    - --host
    - 0.0.0.0
    - --port
    - {{ $v.engine.port | quote }}
    - --shutdown-timeout
    - {{ $v.drain.requestSeconds | quote }}
    - --disable-access-log-for-endpoints
    - /health,/metrics,/ping
    - --middleware
    - qwenhost_key_guard.KeyGuard
    {{- if $tls }}
    - --ssl-certfile
    - /etc/qwenhost/tls/tls.crt
    - --ssl-keyfile
    - /etc/qwenhost/tls/tls.key
    - --enable-ssl-refresh
    {{- end }}
    {{- with $v.monitoring.tracing.endpoint }}
    - --otlp-traces-endpoint
    - {{ . | quote }}
    {{- end }}
    {{- range $v.engine.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  env:
    {{- include "qwenhost.engineEnv" . | nindent 4 }}
  ports:
    {{- if ne .role "worker" }}
    - {name: http, containerPort: {{ $v.engine.port }}, protocol: TCP}
    {{- end }}
    {{- if gt (int $p.nodes) 1 }}
    - {name: master, containerPort: {{ $v.multiNode.masterPort }}, protocol: TCP}
    {{- end }}
  {{- if ne .role "worker" }}
  {{- include "qwenhost.probes" . | nindent 2 }}
  {{- end }}
  lifecycle:
    preStop:
      {{- /* A worker outlives the leader's requests. */}}
      sleep: {seconds: {{ ternary (add $v.drain.preStopSeconds $v.drain.requestSeconds) (int $v.drain.preStopSeconds) (eq .role "worker") }}}
  resources:
    {{- include "qwenhost.engineResources" (dict "pool" $p "base" $p.resources "fabric" (ternary $v.multiNode.resources dict (gt (int $p.nodes) 1))) | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - {name: weights, mountPath: /weights, readOnly: true}
    - {name: plan, mountPath: /plan, readOnly: true}
    - {name: keys, mountPath: /etc/qwenhost/keys, readOnly: true}
    - {name: scripts, mountPath: /scripts, readOnly: true}
    - {name: compiled, mountPath: /cache}
    - {name: shm, mountPath: /dev/shm}
    - {name: tmp, mountPath: /tmp}
    {{- if $tls }}
    - {name: tls, mountPath: /etc/qwenhost/tls, readOnly: true}
    {{- end }}
    {{- with $v.engine.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "qwenhost.engineEnv" -}}
{{- $v := .root.Values -}}
{{- $p := .pool -}}
{{- include "qwenhost.commonEnv" .root }}
- {name: HF_HUB_OFFLINE, value: "1"}
- {name: HF_HOME, value: /tmp/home/hub}
- {name: VLLM_NO_USAGE_STATS, value: "1"}
- {name: VLLM_CONFIG_ROOT, value: /tmp/home/config/vllm}
- {name: NUMBA_CACHE_DIR, value: /tmp/home/cache/numba}
- {name: OUTLINES_CACHE_DIR, value: /tmp/home/cache/outlines}
- {name: QWENHOST_KEY_FILE, value: /etc/qwenhost/keys/keys}
- {name: QWENHOST_MAX_BODY_BYTES, value: {{ mul $v.engine.maxBodyMiB 1048576 | quote }}}
{{- if $v.engine.maxRequestsPerMinute }}
- {name: QWENHOST_MAX_REQUESTS_PER_MINUTE, value: {{ $v.engine.maxRequestsPerMinute | quote }}}
{{- end }}
{{- if $v.auth.openMetrics }}
- {name: QWENHOST_OPEN_METRICS, value: "1"}
{{- end }}
{{- if eq $p.mode "pinned" }}
- {name: QWENHOST_CACHE_KEY, value: {{ include "qwenhost.cacheKey" . }}}
{{- end }}
{{- if gt (int $p.nodes) 1 }}
- {name: QWENHOST_MULTI_NODE, value: {{ $p.backend }}}
- {name: QWENHOST_MASTER_PORT, value: {{ $v.multiNode.masterPort | quote }}}
- name: VLLM_HOST_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}
{{- $extra := dict -}}
{{- if gt (int $p.nodes) 1 -}}{{- $extra = merge $extra $v.multiNode.env -}}{{- end -}}
{{- $extra = merge (deepCopy $v.engine.extraEnv) $p.env $extra -}}
{{- range $name, $value := $extra }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end -}}

{{/* One folder of compiled code for each vLLM, GPU and parallelism. */}}
{{- define "qwenhost.cacheKey" -}}
{{- $config := .pool.config -}}
{{- $gpu := default "any" (first .pool.accelerator.products) | lower | replace "." "-" | replace "_" "-" -}}
{{- printf "vllm%s-%s-tp%d-pp%d" .root.Values.plan.vllmVersion $gpu (int (get $config "tensor-parallel-size" | default 1)) (int (get $config "pipeline-parallel-size" | default 1)) -}}
{{- end -}}

{{/*
Startup has the budget of the plan, so that loading is not taken for death. Liveness: see files/scripts/alive.py.
*/}}
{{- define "qwenhost.probes" -}}
{{- $v := .root.Values -}}
{{- $scheme := include "qwenhost.scheme" .root | upper -}}
startupProbe:
  httpGet: {path: /health, port: http, scheme: {{ $scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: {{ div (add .pool.budgetSeconds 9) 10 }}
readinessProbe:
  httpGet: {path: /health, port: http, scheme: {{ $scheme }}}
  {{- toYaml $v.probes.readiness | nindent 2 }}
livenessProbe:
  {{- if $v.probes.stallSeconds }}
  exec:
    command:
      - python3
      - -I
      - /scripts/alive.py
      - --url={{ lower $scheme }}://127.0.0.1:{{ $v.engine.port }}
      - --stall-seconds={{ $v.probes.stallSeconds }}
      - --timeout={{ max 1 (sub (div $v.probes.liveness.timeoutSeconds 2) 1) }}
  {{- else }}
  httpGet: {path: /health, port: http, scheme: {{ $scheme }}}
  {{- end }}
  {{- toYaml $v.probes.liveness | nindent 2 }}
{{- end -}}

{{- define "qwenhost.engineVolumes" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
{{- $p := .pool -}}
{{- include "qwenhost.weightsVolume" (dict "root" $root "writable" (eq (include "qwenhost.downloadMode" $root) "initContainer")) }}
{{ include "qwenhost.scriptsVolume" $root }}
- name: plan
{{- if eq $p.mode "pinned" }}
  configMap: {name: {{ $p.fullname }}}
{{- else }}
  emptyDir: {sizeLimit: 16Mi}
- name: request
  configMap: {name: {{ $p.fullname }}}
{{- end }}
- name: keys
  secret: {secretName: {{ include "qwenhost.secretName" $root }}, defaultMode: 0440}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ $v.shmSize }}}
- name: tmp
  emptyDir: {sizeLimit: {{ $v.compileCache.size }}}
- name: compiled
{{- if eq $v.compileCache.type "pvc" }}
  persistentVolumeClaim: {claimName: {{ default (printf "%s-compiled" (include "qwenhost.fullname" $root)) $v.compileCache.pvc.existing }}}
{{- else if eq $v.compileCache.type "hostPath" }}
  hostPath: {path: {{ $v.compileCache.hostPath.path }}, type: DirectoryOrCreate}
{{- else }}
  emptyDir: {sizeLimit: {{ $v.compileCache.size }}}
{{- end }}
{{- with include "qwenhost.tlsSecretName" $root }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- if eq (include "qwenhost.downloadMode" $root) "initContainer" }}
{{- include "qwenhost.fetchVolumes" $root }}
{{- end }}
{{- with $v.engine.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where the pod may run. */}}
{{- define "qwenhost.scheduling" -}}
{{- $v := .root.Values -}}
{{- $p := .pool -}}
{{- $accelerator := $p.accelerator -}}
{{- if or $v.scheduling.priorityClassName $v.scheduling.priorityClass.create }}
priorityClassName: {{ default (printf "%s-%s" .root.Release.Namespace (include "qwenhost.fullname" .root)) $v.scheduling.priorityClassName }}
{{- end }}
{{- with $v.scheduling.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $v.scheduling.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- with merge (deepCopy $p.nodeSelector) $v.scheduling.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat $v.scheduling.tolerations $p.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $p.affinity }}
affinity:
  {{- toYaml $p.affinity | nindent 2 }}
{{- else if ne $p.mode "dra" }}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            {{- /* A slice of a GPU has not the memory that the plan counts on. NotIn holds where the label is missing. */}}
            - {key: nvidia.com/gpu.sharing-strategy, operator: NotIn, values: [time-slicing, mps]}
            {{- with $accelerator.products }}
            - key: nvidia.com/gpu.product
              operator: In
              values:
                {{- toYaml . | nindent 16 }}
            {{- end }}
            {{- if $accelerator.minMemoryMiB }}
            - {key: nvidia.com/gpu.memory, operator: Gt, values: [{{ sub (int64 $accelerator.minMemoryMiB) 1 | quote }}]}
            {{- end }}
{{- end }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" $v.scheduling.topologyKey }}
  {{- if . }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "qwenhost.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: engine
        qwenhost.io/pool: {{ $p.name }}
  {{- end }}
  {{- end }}
{{- end -}}

{{/* What the engine is told: vLLM's config file of a pinned plan, else the request to the planner. */}}
{{- define "qwenhost.planFile" -}}
{{- $v := .root.Values -}}
{{- $p := .pool -}}
{{- $names := uniq (compact (list $v.model.servedName $p.model.repoId)) -}}
{{- if eq $p.mode "pinned" -}}
{{- toYaml (merge (dict "model" $p.model.path "served-model-name" $names) $p.config) -}}
{{- else -}}
{{- $checkpoints := list -}}
{{- range $p.checkpoints -}}
{{- $checkpoints = append $checkpoints (merge (dict "weightsBytes" (int64 .weightsBytes)) (pick . "id" "repoId" "revision" "path")) -}}
{{- end -}}
{{- toYaml (dict "checkpoints" $checkpoints "servedNames" $names "workload" $v.plan.workload "limits" $v.plan.limits "nodes" $p.nodes "vllmVersion" $v.plan.vllmVersion) -}}
{{- end -}}
{{- end -}}
