{{/* What the values must fulfil beyond their schema; each failure says what to do. */}}

{{- define "pushbridge.rules" -}}
{{- $v := .Values -}}
{{- if not $v.config.routes -}}
{{- fail "config.routes is empty: pushbridge would answer 404 to everybody. Set at least one, such as\n  config:\n    routes:\n      - name: prices\n        match: { path: \"/prices/{symbol}\" }\n        push: { channels: [\"prices.{symbol}\"] }" -}}
{{- end -}}
{{- $scaled := or $v.autoscaling.enabled $v.keda.enabled -}}
{{- $isMemory := or (not $v.bus) (hasKey $v.bus "memory") -}}
{{- if $isMemory -}}
{{- $why := "the memory bus does not leave its pod: an event that reaches one pod would never reach the clients of the others. Set `bus` to redis, nats or kafka" -}}
{{- if eq $v.kind "DaemonSet" -}}
{{- fail (printf "kind is DaemonSet, which runs many pods, but %s, or kind to Deployment." $why) -}}
{{- else if $scaled -}}
{{- fail (printf "autoscaling.enabled or keda.enabled adds pods, but %s, or leave scaling off." $why) -}}
{{- else if gt (int $v.replicas) 1 -}}
{{- fail (printf "replicas is %d, but %s, or replicas to 1." (int $v.replicas) $why) -}}
{{- end -}}
{{- end -}}
{{- if and $v.autoscaling.enabled $v.keda.enabled -}}
{{- fail "autoscaling.enabled and keda.enabled: two scalers would pull at the same pods. Switch one off." -}}
{{- end -}}
{{- if and $scaled (eq $v.kind "DaemonSet") -}}
{{- fail "kind is DaemonSet, which has one pod on each node and can't be scaled. Switch autoscaling and keda off, or set kind to Deployment." -}}
{{- end -}}
{{- range $name, $scaler := dict "autoscaling" $v.autoscaling "keda" $v.keda -}}
{{- if and $scaler.enabled (gt (int $scaler.minReplicas) (int $scaler.maxReplicas)) -}}
{{- fail (printf "%s.minReplicas is %d, over its maxReplicas of %d. Raise maxReplicas." $name (int $scaler.minReplicas) (int $scaler.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.keda.enabled (not $v.keda.serverAddress) -}}
{{- fail "keda.serverAddress is empty: KEDA has to know which Prometheus to ask, such as http://prometheus.monitoring.svc:9090." -}}
{{- end -}}
{{- $needed := include "pushbridge.drainSeconds" . | int64 -}}
{{- $grace := include "pushbridge.gracePeriodSeconds" . | int64 -}}
{{- if lt $grace $needed -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, but a drain takes %d (drain.settle + drain.spread + drain.margin): the kubelet would kill the pod while clients are still on it. Leave terminationGracePeriodSeconds out, or make the drain shorter." $grace $needed) -}}
{{- end -}}
{{- include "pushbridge.busRules" . -}}
{{- include "pushbridge.networkRules" . -}}
{{- include "pushbridge.fileRules" . -}}
{{- range $name, $upstream := $v.config.upstreams -}}
{{- range $upstream.servers -}}
{{- $namespace := regexReplaceAll "^http[+]kube://[^.]*[.]([^.:]*):.*$" . "${1}" -}}
{{- if and (hasPrefix "http+kube://" .) (ne $namespace .) (not (has $namespace $v.endpointSlices.namespaces)) -}}
{{- fail (printf "config.upstreams.%s.servers has %s, but pushbridge may not watch the EndpointSlices of that namespace. Add %s to endpointSlices.namespaces." $name . $namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pushbridge.busRules" -}}
{{- $ways := dict "redis" (list "url" "sentinel" "cluster") "nats" (list "url" "urls") -}}
{{- range $bus, $settings := .Values.bus -}}
{{- with get $ways $bus -}}
{{- $given := list -}}
{{- range . -}}{{- if hasKey $settings . -}}{{- $given = append $given . -}}{{- end -}}{{- end -}}
{{- if ne (len $given) 1 -}}
{{- fail (printf "bus.%s has %s, so that it is not clear where it is. Set exactly one of %s." $bus ($given | join " and " | default "no address") (join ", " .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The files that a part of the values names by relative paths: lines of `key file`. */}}
{{- define "pushbridge.namedFiles" -}}
{{- $at := .at -}}
{{- if kindIs "map" .part -}}
{{- range $key, $value := .part -}}
{{- $path := printf "%s.%s" $at $key -}}
{{- if and (hasSuffix "_file" $key) (kindIs "string" $value) -}}
{{- if not (hasPrefix "/" $value) -}}{{- printf "%s %s\n" $path $value -}}{{- end -}}
{{- else -}}
{{- include "pushbridge.namedFiles" (dict "at" $path "part" $value) -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" .part -}}
{{- range $index, $value := .part -}}
{{- include "pushbridge.namedFiles" (dict "at" (printf "%s[%d]" $at $index) "part" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pushbridge.fileRules" -}}
{{- $there := list -}}
{{- range include "pushbridge.volumeSources" . | fromYamlArray -}}
{{- range (.configMap | default .secret).items -}}{{- $there = append $there .path -}}{{- end -}}
{{- end -}}
{{- range $at, $part := dict "bus" .Values.bus "publish.auth" .Values.publish.auth "config.publish" .Values.config.publish -}}
{{- range include "pushbridge.namedFiles" (dict "at" $at "part" $part) | trim | splitList "\n" | compact -}}
{{- $named := splitn " " 2 . -}}
{{- if not (has (clean $named._1) $there) -}}
{{- fail (printf "%s is %s, which no entry of secretFiles has as its path: pushbridge would not find it. Add { secretName: …, key: …, path: %s }." $named._0 $named._1 (clean $named._1)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pushbridge.networkRules" -}}
{{- $v := .Values -}}
{{- $http := $v.listeners.http -}}
{{- $https := $v.listeners.https -}}
{{- if not (or $http.enabled $https.enabled) -}}
{{- fail "listeners.http and listeners.https are both off: no client could connect. Switch one on." -}}
{{- end -}}
{{- if and $https.enabled (not (include "pushbridge.certificates" . | fromJson).names) -}}
{{- fail "listeners.https has no certificate. Name a Secret of type kubernetes.io/tls in listeners.https.certificates, or let cert-manager make one with certificate.enabled." -}}
{{- end -}}
{{- with $v.certificate -}}
{{- if .enabled -}}
{{- if not $https.enabled -}}
{{- fail "certificate.enabled makes the certificate of listeners.https, which is off. Set listeners.https.enabled to true." -}}
{{- end -}}
{{- if not .dnsNames -}}
{{- fail "certificate.dnsNames is empty: name the hosts that clients connect to." -}}
{{- end -}}
{{- if not .issuerRef.name -}}
{{- fail "certificate.issuerRef.name is empty: name the Issuer or ClusterIssuer that signs." -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $http.enabled) -}}
{{- fail "ingress.enabled sends to listeners.http, which is off. Set listeners.http.enabled to true; the ingress controller ends TLS." -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
{{- fail "ingress.hosts is empty. Set at least one, such as [{ host: push.example.com, paths: [/] }]." -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $http.enabled) -}}
{{- fail "httpRoute.enabled sends to listeners.http, which is off. Set listeners.http.enabled to true; the gateway ends TLS." -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is empty: name the Gateway, such as [{ name: web, namespace: gateways }]." -}}
{{- end -}}
{{- $ports := dict -}}
{{- range $name, $port := dict "listeners.http.port" (ternary $http.port 0 $http.enabled) "listeners.https.port" (ternary $https.port 0 $https.enabled) "publish.port" $v.publish.port "admin.port" $v.admin.port -}}
{{- $port = int $port | toString -}}
{{- if and (ne $port "0") (hasKey $ports $port) -}}
{{- fail (printf "%s and %s are both %s. Give each a port of its own." (get $ports $port) $name $port) -}}
{{- end -}}
{{- $_ := set $ports $port $name -}}
{{- end -}}
{{- if and $v.publish.token.existingSecret $v.publish.token.value -}}
{{- fail "publish.token has both existingSecret and value. Leave one out." -}}
{{- end -}}
{{- $paths := dict "secrets/publish-token" "publish.token" -}}
{{- range $at, $file := $v.secretFiles -}}
{{- if hasKey $paths .path -}}
{{- fail (printf "secretFiles[%d].path is %q, where %s is already. Choose another path." $at .path (get $paths .path)) -}}
{{- end -}}
{{- $_ := set $paths .path (printf "secretFiles[%d]" $at) -}}
{{- end -}}
{{- if and $v.serviceMonitor.enabled $v.podMonitor.enabled -}}
{{- fail "serviceMonitor.enabled and podMonitor.enabled: every figure would be counted twice. Switch one off." -}}
{{- end -}}
{{- end -}}
