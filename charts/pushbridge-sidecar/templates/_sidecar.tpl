{{/*
Named templates for the chart of an application. Each takes the application's own context, and reads `.Values.pushbridge`:

  pushbridge:
    config: { upstreams: …, routes: … }   # in pushbridge's words; listeners, publish, admin and drain are made here
    image: { repository: pushbridge, tag: "" }
    mode: native                           # an init container that restarts; or plain, for clusters before 1.29
    port: 8080                             # for clients
    publish: { port: 5561 }                # on loopback: the application alone reaches it
    admin: { port: 9901 }
    drain: { settle: 10s, spread: 60s, margin: 15s }
    app: { stopSeconds: 10, sleep: native }    # how long the application takes to stop; native, or exec for a `sleep` program
    resources: …
    secretFiles: []                        # as in the pushbridge chart
    files: []                              # further sources of the projected volume
*/}}

{{- define "pushbridge-sidecar.values" -}}
{{- $defaults := dict
  "config" dict
  "image" (dict "repository" "pushbridge" "tag" "0.1.0" "pullPolicy" "IfNotPresent")
  "mode" "native"
  "port" 8080
  "publish" (dict "port" 5561)
  "admin" (dict "port" 9901)
  "drain" (dict "settle" "10s" "spread" "60s" "margin" "15s")
  "app" (dict "stopSeconds" 10 "sleep" "native")
  "resources" (dict "requests" (dict "cpu" "50m" "memory" "64Mi") "limits" (dict "memory" "256Mi"))
  "secretFiles" list
  "files" list
-}}
{{- $given := .Values.pushbridge | default dict -}}
{{- range $key, $value := $given -}}
{{- if not (hasKey $defaults $key) -}}
{{- fail (printf "pushbridge.%s is not known. There are: %s." $key (keys $defaults | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $parts := get $defaults $key -}}
{{- if and (kindIs "map" $parts) (not (has $key (list "config" "resources"))) -}}
{{- range $part, $_ := $value -}}
{{- if not (hasKey $parts $part) -}}
{{- fail (printf "pushbridge.%s.%s is not known. There are: %s." $key $part (keys $parts | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $values := mergeOverwrite $defaults (deepCopy $given) -}}
{{- if not (has $values.mode (list "native" "plain")) -}}
{{- fail (printf "pushbridge.mode is %q. Set it to native (an init container that restarts) or plain." $values.mode) -}}
{{- end -}}
{{- if not (has $values.app.sleep (list "native" "exec")) -}}
{{- fail (printf "pushbridge.app.sleep is %q. Set it to native (Kubernetes sleeps, from 1.30 on) or exec (the application's image has a `sleep`)." $values.app.sleep) -}}
{{- end -}}
{{- if not $values.config.routes -}}
{{- fail "pushbridge.config.routes is empty: pushbridge would answer 404 to everybody. Set at least { name: app, proxy: { upstream: app } }." -}}
{{- end -}}
{{- range $key := list "listeners" "admin" "drain" -}}
{{- if hasKey $values.config $key -}}
{{- fail (printf "pushbridge.config.%s is made by this chart. Set pushbridge.%s instead." $key (ternary "port" $key (eq $key "listeners"))) -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := $values.drain -}}
{{- if not (regexMatch "^[0-9]{1,6}(ms|s|m|h)$" (toString $value)) -}}
{{- fail (printf "pushbridge.drain.%s is %q. Write a whole number with ms, s, m or h, such as 30s." $key (toString $value)) -}}
{{- end -}}
{{- end -}}
{{- toJson $values -}}
{{- end -}}

{{- define "pushbridge-sidecar.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{ div (add $number 999) 1000 }}
{{- else if eq $unit "s" -}}{{ $number }}
{{- else if eq $unit "m" -}}{{ mul $number 60 }}
{{- else -}}{{ mul $number 3600 }}
{{- end -}}
{{- end -}}

{{/* Until the clients are gone: how long the application has to stay. */}}
{{- define "pushbridge-sidecar.sleepSeconds" -}}
{{- $v := include "pushbridge-sidecar.values" . | fromJson -}}
{{- add (include "pushbridge-sidecar.seconds" $v.drain.settle | int64) (include "pushbridge-sidecar.seconds" $v.drain.spread | int64) -}}
{{- end -}}

{{/* For the pod: the drain, and the application's own stop. */}}
{{- define "pushbridge-sidecar.terminationGracePeriodSeconds" -}}
{{- $v := include "pushbridge-sidecar.values" . | fromJson -}}
{{- add (include "pushbridge-sidecar.sleepSeconds" . | int64) (include "pushbridge-sidecar.seconds" $v.drain.margin | int64) (int $v.app.stopSeconds) -}}
{{- end -}}

{{/* For the pod's and the objects' labels. */}}
{{- define "pushbridge-sidecar.labels" -}}
pushbridge/sidecar: "true"
{{- end -}}

{{/* pushbridge.yaml. */}}
{{- define "pushbridge-sidecar.config" -}}
{{- $v := include "pushbridge-sidecar.values" . | fromJson -}}
{{- $config := deepCopy $v.config -}}
{{- $_ := set $config "listeners" (list (dict "name" "http" "address" (printf "0.0.0.0:%d" (int $v.port)))) -}}
{{- $_ := set $config "publish" (merge (dict "address" (printf "127.0.0.1:%d" (int $v.publish.port))) ($config.publish | default dict)) -}}
{{- $_ := set $config "admin" (dict "address" (printf "0.0.0.0:%d" (int $v.admin.port))) -}}
{{- $_ := set $config "drain" (dict "settle" $v.drain.settle "spread" $v.drain.spread "margin" $v.drain.margin "fail_readiness" "after_settle") -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The ConfigMap, a whole object. */}}
{{- define "pushbridge-sidecar.configmap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-pushbridge
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "pushbridge-sidecar.labels" . | nindent 4 }}
data:
  pushbridge.yaml: |
    {{- include "pushbridge-sidecar.config" . | nindent 4 }}
{{- end -}}

{{/* For the pod's `volumes`. */}}
{{- define "pushbridge-sidecar.volumes" -}}
{{- $v := include "pushbridge-sidecar.values" . | fromJson -}}
- name: pushbridge
  projected:
    defaultMode: 0444
    sources:
      - configMap:
          name: {{ .Release.Name }}-pushbridge
          items:
            - { key: pushbridge.yaml, path: pushbridge.yaml }
      {{- range $v.secretFiles }}
      - secret:
          name: {{ .secretName }}
          items:
            - { key: {{ .key }}, path: {{ .path }} }
      {{- end }}
      {{- with $v.files }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end -}}

{{/* The container without what the two modes differ in. */}}
{{- define "pushbridge-sidecar.body" -}}
{{- $v := include "pushbridge-sidecar.values" . | fromJson -}}
name: pushbridge
image: {{ printf "%s:%s" $v.image.repository $v.image.tag }}
imagePullPolicy: {{ $v.image.pullPolicy }}
args: [run, --config, /etc/pushbridge/pushbridge.yaml]
ports:
  - { name: push-http, containerPort: {{ $v.port }}, protocol: TCP }
  - { name: push-admin, containerPort: {{ $v.admin.port }}, protocol: TCP }
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
  seccompProfile: { type: RuntimeDefault }
startupProbe:
  httpGet: { path: /livez, port: push-admin }
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /livez, port: push-admin }
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: { path: /readyz, port: push-admin }
  periodSeconds: 5
  failureThreshold: 2
lifecycle:
  preStop:
    exec:
      # Begins the drain and comes back at once. SIGTERM, whenever it comes, then means: exit when done.
      command: [/pushbridge, drain, --no-wait, --admin, "http://127.0.0.1:{{ $v.admin.port }}"]
resources:
  {{- toYaml $v.resources | nindent 2 }}
volumeMounts:
  - { name: pushbridge, mountPath: /etc/pushbridge, readOnly: true }
{{- end -}}

{{/* For the pod's `initContainers`: nothing in plain mode. It starts before the application and stops after it. */}}
{{- define "pushbridge-sidecar.initContainer" -}}
{{- $v := include "pushbridge-sidecar.values" . | fromJson -}}
{{- if eq $v.mode "native" -}}
- restartPolicy: Always
  {{- include "pushbridge-sidecar.body" . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* For the pod's `containers`: nothing in native mode. */}}
{{- define "pushbridge-sidecar.container" -}}
{{- $v := include "pushbridge-sidecar.values" . | fromJson -}}
{{- if eq $v.mode "plain" -}}
- {{- include "pushbridge-sidecar.body" . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* For the application's own container: it stays for as long as clients are there, since they ask it through pushbridge. */}}
{{- define "pushbridge-sidecar.appLifecycle" -}}
{{- $v := include "pushbridge-sidecar.values" . | fromJson -}}
preStop:
  {{- if eq $v.app.sleep "native" }}
  sleep:
    seconds: {{ include "pushbridge-sidecar.sleepSeconds" . }}
  {{- else }}
  exec:
    command: [sleep, {{ include "pushbridge-sidecar.sleepSeconds" . | quote }}]
  {{- end }}
{{- end -}}
