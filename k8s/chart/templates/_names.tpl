{{/* Names and labels. A Service named vllm* would put VLLM_* variables into pods, hence the refusal. */}}

{{- define "qwenhost.fullname" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) -}}
{{- end -}}
{{- if hasPrefix "vllm" $name -}}
{{- fail (printf "\n\nfullnameOverride: objects may not be called %q: a Service named vllm* sets VLLM_PORT in every pod of the namespace, which stops vLLM. Choose another release name or fullnameOverride." $name) -}}
{{- end -}}
{{- $name | trunc 38 | trimSuffix "-" -}}
{{- end -}}

{{- define "qwenhost.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "qwenhost.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "qwenhost.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: qwenhost
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Dict: root, component. */}}
{{- define "qwenhost.meta" -}}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "qwenhost.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "qwenhost.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "qwenhost.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "qwenhost.secretName" -}}
{{- default (printf "%s-keys" (include "qwenhost.fullname" .)) .Values.auth.existingSecret -}}
{{- end -}}

{{- define "qwenhost.tlsSecretName" -}}
{{- if .Values.tls.existingSecret -}}
{{- .Values.tls.existingSecret -}}
{{- else if .Values.tls.certManager.issuerRef -}}
{{- printf "%s-tls" (include "qwenhost.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "qwenhost.scheme" -}}
{{- ternary "https" "http" (ne (include "qwenhost.tlsSecretName" .) "") -}}
{{- end -}}

{{- define "qwenhost.url" -}}
{{- printf "%s://%s.%s.svc:%d" (include "qwenhost.scheme" .) (include "qwenhost.fullname" .) .Release.Namespace (int .Values.service.port) -}}
{{- end -}}

{{/* An image of another's, in front of it the registry of an air-gapped cluster. Dict: root, image. */}}
{{- define "qwenhost.foreignImage" -}}
{{- $registry := .root.Values.airGap.registry -}}
{{- if $registry -}}{{ trimSuffix "/" $registry }}/{{ .image }}{{- else -}}{{ .image }}{{- end -}}
{{- end -}}

{{- define "qwenhost.image" -}}
{{- $tag := default (printf "%s-vllm%s" .Chart.AppVersion .Values.plan.vllmVersion) .Values.image.tag -}}
{{- $image := printf "%s:%s" .Values.image.repository $tag -}}
{{- if .Values.image.digest -}}
{{- $image = printf "%s@%s" $image .Values.image.digest -}}
{{- end -}}
{{- include "qwenhost.foreignImage" (dict "root" . "image" $image) -}}
{{- end -}}

{{- define "qwenhost.pullPolicy" -}}
{{- default (ternary "IfNotPresent" "Always" (ne .Values.image.digest "")) .Values.image.pullPolicy -}}
{{- end -}}
