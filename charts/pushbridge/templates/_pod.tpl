{{/* The pod, for a Deployment or a DaemonSet. */}}

{{- define "pushbridge.pod" -}}
metadata:
  labels:
    {{- include "pushbridge.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: pushbridge
    {{- if .Values.restartOnConfigChange }}
    checksum/config: {{ include "pushbridge.config" . | sha256sum }}
    {{- else }}
    checksum/start-only-config: {{ include "pushbridge.startOnly" . | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "pushbridge.serviceAccountName" . }}
  automountServiceAccountToken: {{ not (empty .Values.endpointSlices.namespaces) }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "pushbridge.gracePeriodSeconds" . }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "pushbridge.topologySpread" . | nindent 2 }}
  {{- with .Values.extraInitContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - {{- include "pushbridge.container" . | nindent 6 }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      projected:
        defaultMode: 0440
        sources:
          {{- include "pushbridge.volumeSources" . | nindent 10 }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "pushbridge.topologySpread" -}}
{{- if .Values.topologySpreadConstraints -}}
topologySpreadConstraints:
  {{- toYaml .Values.topologySpreadConstraints | nindent 2 }}
{{- else if and (ne .Values.topologySpread "none") (eq .Values.kind "Deployment") -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ ternary "DoNotSchedule" "ScheduleAnyway" (eq $.Values.topologySpread "hard") }}
    labelSelector:
      matchLabels:
        {{- include "pushbridge.selectorLabels" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "pushbridge.container" -}}
name: pushbridge
image: {{ include "pushbridge.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run, --config, /etc/pushbridge/pushbridge.yaml]
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
ports:
  {{- range $name := list "http" "https" }}
  {{- with index $.Values.listeners $name }}
  {{- if .enabled }}
  - name: {{ $name }}
    containerPort: {{ .port }}
    protocol: TCP
    {{- if $.Values.hostPorts }}
    hostPort: {{ .servicePort }}
    {{- end }}
  {{- end }}
  {{- end }}
  {{- end }}
  - name: publish
    containerPort: {{ .Values.publish.port }}
    protocol: TCP
  - name: admin
    containerPort: {{ .Values.admin.port }}
    protocol: TCP
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $probe, $path := dict "startup" "/livez" "liveness" "/livez" "readiness" "/readyz" }}
{{ $probe }}Probe:
  httpGet:
    path: {{ $path }}
    port: admin
  {{- toYaml (index $.Values.probes $probe) | nindent 2 }}
{{- end }}
{{- with .Values.lifecycle }}
lifecycle:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/pushbridge
    readOnly: true
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
