{{- define "towpath.netconf" -}}
{{- $conf := dict "EnableIPv4" false "EnableIPv6" false }}
{{- range .Values.cluster_cidrs }}
{{- if contains ":" . }}
{{- $_ := set $conf "EnableIPv6" true }}{{- $_ := set $conf "IPv6Network" . }}
{{- else }}
{{- $_ := set $conf "EnableIPv4" true }}{{- $_ := set $conf "Network" . }}
{{- end }}
{{- end }}
{{- $backend := dict "Type" .Values.backend }}
{{- if eq .Values.backend "vxlan" }}
{{- $_ := set $backend "VNI" (int .Values.vni) }}{{- $_ := set $backend "Port" (int .Values.port) }}
{{- if .Values.direct_routing }}{{- $_ := set $backend "DirectRouting" true }}{{- end }}
{{- end }}
{{- $_ := set $conf "Backend" $backend }}
{{- toPrettyJson $conf }}
{{- end }}

{{- define "towpath.agent" -}}
{{- $fixed := fromYaml (include "towpath.fixed" .) }}
{{- toYaml (merge (deepCopy .Values.agent) $fixed) }}
{{- end }}

{{- define "towpath.fixed" -}}
net_conf: /etc/towpath/net-conf.json
cni_socket: {{ .Values.run }}/cni.sock
state_dir: {{ .Values.state }}
{{- if ne .Values.cni_conf "/etc/cni/net.d" }}
network_conf_dir: {{ .Values.cni_conf }}
{{- end }}
health_address: '{{ if not .Values.metrics_tls_secret }}127.0.0.1{{ end }}:{{ int .Values.health_port }}'
{{- if .Values.metrics_tls_secret }}
health_tls_cert: /etc/towpath-tls/tls.crt
{{- end }}
{{- if .Values.metrics_tls_secret }}
health_tls_key: /etc/towpath-tls/tls.key
{{- end }}
run_as_uid: {{ int .Values.uid }}
run_as_gid: {{ int .Values.gid }}
log_format: json
{{- end }}
