{{/* Names and labels. */}}

{{- define "pushbridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters at most, so that suffixes still fit into a DNS label. */}}
{{- define "pushbridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "pushbridge.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pushbridge.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pushbridge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pushbridge.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "pushbridge.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The head of an object. Takes (list context kind-suffix), or (list context kind-suffix labels annotations). */}}
{{- define "pushbridge.metadata" -}}
{{- $ctx := index . 0 -}}
{{- $suffix := index . 1 -}}
name: {{ printf "%s%s" (include "pushbridge.fullname" $ctx) $suffix }}
namespace: {{ $ctx.Release.Namespace }}
labels:
  {{- include "pushbridge.labels" $ctx | nindent 2 }}
  {{- if gt (len .) 2 }}
  {{- with index . 2 }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- if gt (len .) 3 }}
{{- with index . 3 }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "pushbridge.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "pushbridge.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "pushbridge.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "pushbridge.certificateSecret" -}}
{{- default (printf "%s-tls" (include "pushbridge.fullname" .)) .Values.certificate.secretName -}}
{{- end -}}

{{- define "pushbridge.tokenSecret" -}}
{{- default (printf "%s-publish" (include "pushbridge.fullname" .)) .Values.publish.token.existingSecret -}}
{{- end -}}
