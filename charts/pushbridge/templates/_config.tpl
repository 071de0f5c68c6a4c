{{/* The configuration of pushbridge, and the files that it names. */}}

{{/* Whole seconds of a duration such as 500ms, 30s, 5m, 1h; a part of one counts as one. */}}
{{- define "pushbridge.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{ div (add $number 999) 1000 }}
{{- else if eq $unit "s" -}}{{ $number }}
{{- else if eq $unit "m" -}}{{ mul $number 60 }}
{{- else -}}{{ mul $number 3600 }}
{{- end -}}
{{- end -}}

{{- define "pushbridge.drainSeconds" -}}
{{- $drain := .Values.drain -}}
{{- add (include "pushbridge.seconds" $drain.settle | int64) (include "pushbridge.seconds" $drain.spread | int64) (include "pushbridge.seconds" $drain.margin | int64) -}}
{{- end -}}

{{- define "pushbridge.gracePeriodSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- include "pushbridge.drainSeconds" . -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds | int64 -}}
{{- end -}}
{{- end -}}

{{/* The Secrets whose certificates listeners.https serves, as JSON: {"names": […]}. */}}
{{- define "pushbridge.certificates" -}}
{{- $names := list -}}
{{- if .Values.listeners.https.enabled -}}
{{- if .Values.certificate.enabled -}}{{- $names = append $names (include "pushbridge.certificateSecret" .) -}}{{- end -}}
{{- range .Values.listeners.https.certificates -}}{{- $names = append $names .secretName -}}{{- end -}}
{{- end -}}
{{- dict "names" $names | toJson -}}
{{- end -}}

{{- define "pushbridge.listeners" -}}
{{- $listeners := list -}}
{{- $bind := .Values.bindAddress -}}
{{- with .Values.listeners.https -}}
{{- if .enabled -}}
{{- $certificates := list -}}
{{- range (include "pushbridge.certificates" $ | fromJson).names -}}
{{- $certificates = append $certificates (dict "cert_file" (printf "tls/%s/tls.crt" .) "key_file" (printf "tls/%s/tls.key" .)) -}}
{{- end -}}
{{- $tls := dict "min_version" .minVersion "certificates" $certificates -}}
{{- if .clientCa.secretName -}}{{- $_ := set $tls "client_ca_file" (printf "tls/%s/%s" .clientCa.secretName .clientCa.key) -}}{{- end -}}
{{- $listener := dict "name" "https" "address" (printf "%s:%d" $bind (int .port)) "tls" $tls -}}
{{- with .trustedProxies -}}{{- $_ := set $listener "trusted_proxies" . -}}{{- end -}}
{{- $listeners = append $listeners (merge $listener .settings) -}}
{{- end -}}
{{- end -}}
{{- with .Values.listeners.http -}}
{{- if .enabled -}}
{{- $listener := dict "name" "http" "address" (printf "%s:%d" $bind (int .port)) -}}
{{- with .trustedProxies -}}{{- $_ := set $listener "trusted_proxies" . -}}{{- end -}}
{{- $listeners = append $listeners (merge $listener .settings) -}}
{{- end -}}
{{- end -}}
{{- dict "listeners" $listeners | toJson -}}
{{- end -}}

{{/* pushbridge.yaml. */}}
{{- define "pushbridge.config" -}}
{{- $given := deepCopy .Values.config -}}
{{- $config := include "pushbridge.listeners" . | fromJson -}}
{{- $auth := list (dict "bearer" (dict "token_file" "secrets/publish-token")) -}}
{{- range .Values.publish.auth -}}{{- $auth = append $auth . -}}{{- end -}}
{{- $publish := dict "address" (printf "%s:%d" .Values.bindAddress (int .Values.publish.port)) "auth" $auth -}}
{{- $_ := set $config "publish" (merge $publish $given.publish) -}}
{{- $_ := set $config "admin" (dict "address" (printf "%s:%d" .Values.bindAddress (int .Values.admin.port))) -}}
{{- $drain := .Values.drain -}}
{{- $_ := set $config "drain" (dict "settle" $drain.settle "spread" $drain.spread "margin" $drain.margin "fail_readiness" $drain.failReadiness) -}}
{{- with .Values.bus -}}{{- $_ := set $config "bus" . -}}{{- end -}}
{{- range $key := list "routes" "upstreams" "channels" "limits" "sessions" "telemetry" "runtime" -}}
{{- with index $given $key -}}{{- $_ := set $config $key . -}}{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* What a reload can't change: a new value of one of these restarts the pods. */}}
{{- define "pushbridge.startOnly" -}}
{{- $log := (.Values.config.telemetry | default dict).log | default dict -}}
{{- dict "bus" .Values.bus "sessions" .Values.config.sessions "runtime" .Values.config.runtime "admin" .Values.admin "bind" .Values.bindAddress "logFormat" (get $log "format") | toJson -}}
{{- end -}}

{{/* One projected volume has the configuration and all the files that it names, so that they change as one. */}}
{{- define "pushbridge.volumeSources" -}}
- configMap:
    name: {{ include "pushbridge.fullname" . }}
    items:
      - { key: pushbridge.yaml, path: pushbridge.yaml }
- secret:
    name: {{ include "pushbridge.tokenSecret" . }}
    items:
      - { key: {{ .Values.publish.token.key }}, path: secrets/publish-token }
{{- range (include "pushbridge.certificates" . | fromJson).names }}
- secret:
    name: {{ . }}
    items:
      - { key: tls.crt, path: tls/{{ . }}/tls.crt }
      - { key: tls.key, path: tls/{{ . }}/tls.key }
{{- end }}
{{- with .Values.listeners.https.clientCa }}
{{- if and $.Values.listeners.https.enabled .secretName }}
- secret:
    name: {{ .secretName }}
    items:
      - { key: {{ .key }}, path: tls/{{ .secretName }}/{{ .key }} }
{{- end }}
{{- end }}
{{- range .Values.secretFiles }}
- secret:
    name: {{ .secretName }}
    items:
      - { key: {{ .key }}, path: {{ .path }} }
{{- end }}
{{- end -}}
