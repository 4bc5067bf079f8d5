{{/* Parts of pods. */}}

{{- define "qwenhost.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
serviceAccountName: {{ include "qwenhost.serviceAccountName" . }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.security.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* Image, pull policy and security of a container of ours without GPUs. */}}
{{- define "qwenhost.ownContainer" -}}
image: {{ include "qwenhost.image" . }}
imagePullPolicy: {{ include "qwenhost.pullPolicy" . }}
{{ include "qwenhost.closedContainer" . }}
{{- end -}}

{{- define "qwenhost.closedContainer" -}}
securityContext:
  {{- toYaml .Values.security.containerSecurityContext | nindent 2 }}
  readOnlyRootFilesystem: true
{{- end -}}

{{/* Environment of anything that may ask the hub; every cache is led to a folder that a user without a home may write. */}}
{{- define "qwenhost.commonEnv" -}}
- {name: HOME, value: /tmp/home}
- {name: XDG_CACHE_HOME, value: /tmp/home/cache}
- {name: XDG_CONFIG_HOME, value: /tmp/home/config}
- {name: XDG_STATE_HOME, value: /tmp/home/state}
- {name: TMPDIR, value: /tmp}
- {name: DO_NOT_TRACK, value: "1"}
- {name: HF_HUB_DISABLE_TELEMETRY, value: "1"}
{{- end -}}

{{- define "qwenhost.smallResources" -}}
resources:
  requests: {cpu: 100m, memory: 256Mi}
  limits: {cpu: "1", memory: 1Gi}
{{- end -}}

{{/*
Containers that fetch one checkpoint into its folder, the last of which marks it complete.
Dict: root, checkpoint, index.
*/}}
{{- define "qwenhost.fetchContainers" -}}
{{- $v := .root.Values -}}
{{- $s3 := eq $v.model.source.type "s3" -}}
{{- if $s3 }}
- name: copy-{{ .index }}
  image: {{ include "qwenhost.foreignImage" (dict "root" .root "image" $v.model.source.s3.image) }}
  imagePullPolicy: {{ include "qwenhost.pullPolicy" .root }}
  {{- include "qwenhost.closedContainer" .root | nindent 2 }}
  command: [/bin/sh, -ec]
  args:
    - |
      if [ -f "$TARGET/.complete" ]; then exit 0; fi
      exec aws s3 sync "$SOURCE" "$TARGET/files" --no-progress \
        --exclude '*' --include '*.safetensors' --include '*.json' --include '*.jinja' --include '*.txt'
  env:
    {{- include "qwenhost.commonEnv" .root | nindent 4 }}
    - {name: TARGET, value: /weights/{{ .checkpoint.key }}}
    - {name: SOURCE, value: {{ $v.model.source.s3.uri | quote }}}
    - {name: AWS_REGION, value: {{ $v.model.source.s3.region | quote }}}
    {{- with $v.model.source.s3.endpoint }}
    - {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
    {{- end }}
    {{- if $v.model.source.s3.existingSecret }}
    - {name: AWS_SHARED_CREDENTIALS_FILE, value: /etc/qwenhost/s3/credentials}
    {{- end }}
  resources:
    {{- toYaml $v.weights.download.resources | nindent 4 }}
  volumeMounts:
    - {name: weights, mountPath: /weights}
    - {name: tmp, mountPath: /tmp}
    {{- if $v.model.source.s3.existingSecret }}
    - {name: s3, mountPath: /etc/qwenhost/s3, readOnly: true}
    {{- end }}
{{- end }}
- name: fetch-{{ .index }}
  {{- include "qwenhost.ownContainer" .root | nindent 2 }}
  command: [/bin/sh, /scripts/fetch.sh]
  terminationMessagePolicy: FallbackToLogsOnError
  env:
    {{- include "qwenhost.commonEnv" .root | nindent 4 }}
    - {name: TARGET, value: /weights/{{ .checkpoint.key }}}
    {{- if $s3 }}
    - {name: COPIED, value: "1"}
    {{- else }}
    - {name: REPO, value: {{ .checkpoint.repoId }}}
    - {name: REVISION, value: {{ .checkpoint.revision | quote }}}
    {{- end }}
    {{- if eq $v.model.source.type "mirror" }}
    - {name: HF_ENDPOINT, value: {{ $v.model.source.mirror.endpoint | quote }}}
    {{- end }}
    {{- if $v.weights.hubToken.existingSecret }}
    - {name: HF_TOKEN_PATH, value: /etc/qwenhost/hub/token}
    {{- end }}
  resources:
    {{- toYaml $v.weights.download.resources | nindent 4 }}
  volumeMounts:
    - {name: weights, mountPath: /weights}
    - {name: scripts, mountPath: /scripts, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- if $v.weights.hubToken.existingSecret }}
    - {name: hub-token, mountPath: /etc/qwenhost/hub, readOnly: true}
    {{- end }}
{{- end -}}

{{/* Volumes that fetching needs beside the weights. */}}
{{- define "qwenhost.fetchVolumes" -}}
{{- if eq .Values.model.source.type "s3" }}
{{- with .Values.model.source.s3.existingSecret }}
- name: s3
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- if .Values.weights.hubToken.existingSecret }}
- name: hub-token
  secret:
    secretName: {{ .Values.weights.hubToken.existingSecret }}
    defaultMode: 0440
    items: [{key: {{ .Values.weights.hubToken.key }}, path: token}]
{{- end }}
{{- end -}}

{{/* The volume with the weights. Dict: root, writable. */}}
{{- define "qwenhost.weightsVolume" -}}
{{- $v := .root.Values -}}
{{- $source := $v.model.source -}}
- name: weights
{{- if eq $source.type "pvc" }}
  persistentVolumeClaim: {claimName: {{ $source.pvc.claimName }}, readOnly: true}
{{- else if eq $source.type "oci" }}
  image: {reference: {{ include "qwenhost.foreignImage" (dict "root" .root "image" $source.oci.reference) }}, pullPolicy: {{ $source.oci.pullPolicy }}}
{{- else if eq $source.type "hostPath" }}
  hostPath: {path: {{ $source.hostPath.path }}, type: Directory}
{{- else if eq $v.weights.type "emptyDir" }}
  emptyDir: {}
{{- else }}
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-weights" (include "qwenhost.fullname" .root)) $v.weights.claim.existing }}
    {{- if not .writable }}
    readOnly: true
    {{- end }}
{{- end }}
{{- end -}}

{{- define "qwenhost.scriptsVolume" -}}
- name: scripts
  configMap: {name: {{ include "qwenhost.fullname" . }}-scripts, defaultMode: 0555}
{{- end -}}
