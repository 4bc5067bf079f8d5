{{/*
The pools in full, as a JSON list: every field that the templates read is there. Their origin is `pools`,
`gpus` (files/plans.yaml), `gpus: auto` or `dra`.
*/}}
{{- define "qwenhost.pools" -}}
{{- $root := . -}}
{{- $v := .Values -}}
{{- $raw := list -}}
{{- if and $v.gpus $v.pools -}}
{{- fail "\n\ngpus and pools: both say what GPUs there are. Leave gpus empty where a values file brings pools." -}}
{{- end -}}
{{- if eq $v.plan.mode "dra" -}}
{{- if or $v.gpus $v.pools -}}
{{- fail "\n\nplan.mode=dra takes its GPUs from dra.ladder: leave gpus and pools empty." -}}
{{- end -}}
{{- $raw = list (dict "name" "dra" "replicas" $v.dra.replicas "mode" "dra") -}}
{{- else if $v.pools -}}
{{- range $v.pools -}}
{{- $raw = append $raw (merge (dict "mode" $v.plan.mode) .) -}}
{{- end -}}
{{- else if eq $v.gpus "auto" -}}
{{- $raw = fromJsonArray (include "qwenhost.autoPools" $root) -}}
{{- else if $v.gpus -}}
{{- $raw = fromJsonArray (include "qwenhost.knownPools" $root) -}}
{{- else -}}
{{- fail "\n\ngpus: say what GPUs this release may use, for example --set gpus=2xH200, or --set gpus=auto, or a values file written by `qwenhost k8s plan`." -}}
{{- end -}}
{{- $pools := list -}}
{{- range $raw -}}
{{- $pools = append $pools (fromJson (include "qwenhost.pool" (dict "root" $root "raw" .))) -}}
{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{/* Pools for names such as 2xH200, separated by commas. */}}
{{- define "qwenhost.knownPools" -}}
{{- $known := fromYaml (.Files.Get "files/plans.yaml") -}}
{{- $mode := .Values.plan.mode -}}
{{- $raw := list -}}
{{- range splitList "," (.Values.gpus | replace " " "") -}}
{{- $name := . -}}
{{- $found := "" -}}
{{- range $key, $_ := $known -}}
{{- if eq (lower ($key | replace " " "")) (lower $name) -}}{{- $found = $key -}}{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "\n\ngpus=%s: no plan for these GPUs in the chart. It has: %s, and auto. For others: qwenhost k8s plan --help." $name (join ", " (keys $known | sortAlpha))) -}}
{{- end -}}
{{- $entry := get $known $found -}}
{{- $raw = append $raw (merge (dict "mode" $mode "model" (merge (default dict $entry.pool.model) $entry.model)) $entry.pool) -}}
{{- end -}}
{{- toJson $raw -}}
{{- end -}}

{{/* Pools for gpus=auto: the number of GPUs from values or from the cluster's nodes, the rest by the init container. */}}
{{- define "qwenhost.autoPools" -}}
{{- $auto := .Values.plan.auto -}}
{{- $count := int $auto.gpusPerNode -}}
{{- if not $count -}}
{{- range (lookup "v1" "Node" "" "").items -}}
{{- $count = max $count (int (get (default dict .status.allocatable) "nvidia.com/gpu")) -}}
{{- end -}}
{{- end -}}
{{- if not $count -}}
{{- fail "\n\ngpus=auto: no node of this cluster offers nvidia.com/gpu, or none can be seen (helm template, GitOps). Say how many GPUs a node has: --set plan.auto.gpusPerNode=8." -}}
{{- end -}}
{{- toJson (list (dict "name" "auto" "mode" "initContainer" "replicas" $auto.replicas "gpusPerNode" $count)) -}}
{{- end -}}

{{/* One pool with every field. Dict: root, raw. */}}
{{- define "qwenhost.pool" -}}
{{- $v := .root.Values -}}
{{- $raw := .raw -}}
{{- $model := dict "repoId" $v.model.repoId "revision" $v.model.revision "weightsBytes" $v.model.weightsBytes -}}
{{- range $key, $value := default dict $raw.model -}}{{- if and $value (hasKey $model $key) -}}{{- $_ := set $model $key $value -}}{{- end -}}{{- end -}}
{{- /* What the user says of the model goes before what files/plans.yaml does. */ -}}
{{- if $v.gpus -}}
{{- range $key := list "repoId" "revision" "weightsBytes" -}}{{- with get $v.model $key -}}{{- $_ := set $model $key . -}}{{- end -}}{{- end -}}
{{- end -}}
{{- $nodes := int (default 1 $raw.nodes) -}}
{{- $planned := ne $raw.mode "pinned" -}}
{{- $checkpoints := list -}}
{{- if $planned -}}
{{- $checkpoints = default (list) $v.plan.checkpoints -}}
{{- if and (not $checkpoints) (not $model.repoId) -}}
{{- $checkpoints = (fromYaml (.root.Files.Get "files/ladder.yaml")).checkpoints -}}
{{- end -}}
{{- end -}}
{{- if not $checkpoints -}}
{{- $checkpoints = list (merge (dict "id" "model") $model) -}}
{{- end -}}
{{- $sized := list -}}
{{- $largest := 0 -}}
{{- range $checkpoints -}}
{{- $sized = append $sized (merge (fromJson (include "qwenhost.weights" (dict "root" $.root "model" .))) .) -}}
{{- $largest = max $largest (int64 .weightsBytes) -}}
{{- end -}}
{{- $startup := dict "readBytesPerSecond" $v.startup.readBytesPerSecond "compileSeconds" $v.startup.compileSeconds "budgetSeconds" $v.startup.budgetSeconds -}}
{{- range $key, $value := default dict $raw.startup -}}{{- $_ := set $startup $key $value -}}{{- end -}}
{{- $budget := int $startup.budgetSeconds -}}
{{- if not $budget -}}
{{- $budget = add (div $largest (int64 $startup.readBytesPerSecond)) (int64 $startup.compileSeconds) 60 -}}
{{- end -}}
{{- $accelerator := merge (deepCopy (default dict $raw.accelerator)) (dict "resource" "nvidia.com/gpu" "products" list "minMemoryMiB" 0) -}}
{{- $engine := default dict $raw.engine -}}
{{- toJson (dict
  "name" $raw.name "mode" $raw.mode "replicas" (int (default 1 $raw.replicas)) "nodes" $nodes
  "gpusPerNode" (int (default 0 $raw.gpusPerNode)) "accelerator" $accelerator
  "checkpoints" $sized "model" (first $sized)
  "config" (default dict $engine.config) "env" (default dict $engine.env)
  "budgetSeconds" $budget "weightsBytes" $largest "capacity" (default dict $raw.capacity)
  "resources" (default $v.resources $raw.resources) "nodeSelector" (default dict $raw.nodeSelector)
  "tolerations" (default list $raw.tolerations) "affinity" (default dict $raw.affinity)
  "backend" (default $v.multiNode.backend (default dict $raw.multiNode).backend) "report" (default "" $raw.report)
  "fullname" (printf "%s-%s" (include "qwenhost.fullname" .root) $raw.name)
) -}}
{{- end -}}

{{/*
Where a checkpoint's weights lie in the pods. Dict: root, model. The folder's name holds the hash of what is in it,
so that two revisions never share one. `fetched` tells whether the chart puts them there.
*/}}
{{- define "qwenhost.weights" -}}
{{- $source := .root.Values.model.source -}}
{{- $type := $source.type -}}
{{- $weights := dict "key" "" "path" "/weights" "fetched" false -}}
{{- if has $type (list "hub" "mirror" "s3") -}}
{{- $origin := ternary $source.s3.uri "" (eq $type "s3") -}}
{{- $hash := sha256sum (printf "%s@%s@%s" .model.repoId .model.revision $origin) | trunc 10 -}}
{{- $short := .model.repoId | default "model" | splitList "/" | last | lower | replace "." "-" | replace "_" "-" | trunc 40 | trimSuffix "-" -}}
{{- $key := printf "%s-%s" $short $hash -}}
{{- $weights = dict "key" $key "path" (printf "/weights/%s/model" $key) "fetched" true -}}
{{- else -}}
{{- $folder := ternary "" (get (get $source $type) "path") (eq $type "hostPath") | trimPrefix "/" | trimSuffix "/" -}}
{{- if $folder -}}{{- $weights = dict "key" "" "path" (printf "/weights/%s" $folder) "fetched" false -}}{{- end -}}
{{- end -}}
{{- toJson $weights -}}
{{- end -}}

{{/* Whether pods fetch the weights themselves: on a claim that one node alone may mount, or on none. */}}
{{- define "qwenhost.downloadMode" -}}
{{- $w := .Values.weights -}}
{{- if not (has .Values.model.source.type (list "hub" "mirror" "s3")) -}}none
{{- else if eq $w.type "emptyDir" -}}initContainer
{{- else if ne $w.download.mode "auto" -}}{{ $w.download.mode }}
{{- else if hasPrefix "ReadWriteOnce" $w.claim.accessMode -}}initContainer
{{- else -}}job
{{- end -}}
{{- end -}}

{{/* Every checkpoint of every pool once, as a JSON list. Dict: pools. */}}
{{- define "qwenhost.checkpoints" -}}
{{- $seen := dict -}}
{{- range .pools -}}{{- range .checkpoints -}}{{- $_ := set $seen (default "existing" .key) . -}}{{- end -}}{{- end -}}
{{- $all := list -}}
{{- range $key := keys $seen | sortAlpha -}}{{- $all = append $all (get $seen $key) -}}{{- end -}}
{{- toJson $all -}}
{{- end -}}
