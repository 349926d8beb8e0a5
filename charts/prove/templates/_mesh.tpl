{{/* Envoy before each service, with mesh.mode envoy. Ports are those of src/prove/mesh/kubernetes.py: a
     service listens 10,000 above its own, which is its proxy's now, and calls others at 15,000 above
     theirs. */}}

{{- define "prove.mesh.on" -}}
{{- if eq .Values.mesh.mode "envoy" }}true{{ end }}
{{- end }}

{{/* Where something that has no proxy asks the shop: (list $ "product" 8001). */}}
{{- define "prove.mesh.address" -}}
{{ ternary "edge" (index . 1) (eq (index . 0).Values.mesh.mode "envoy") }}:{{ index . 2 }}
{{- end }}

{{/* Where a service calls another: (list $ "product" 8001). */}}
{{- define "prove.mesh.peer" -}}
{{ if eq (index . 0).Values.mesh.mode "envoy" }}http://127.0.0.1:{{ add 15000 (index . 2) }}{{ else }}http://{{ index . 1 }}:{{ index . 2 }}{{ end }}
{{- end }}

{{- define "prove.mesh.config" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: mesh-{{ $name }}
  labels: {{- include "prove.labels" . | nindent 4 }}
data:
{{- range $path, $_ := $root.Files.Glob (printf "files/mesh/%s/*" $name) }}
  {{ base $path }}: |
    {{- $root.Files.Get $path | replace "__DOMAIN__" $root.Values.mesh.trustDomain | replace "__NAMESPACE__" $root.Release.Namespace | nindent 4 }}
{{- end }}
{{- end }}

{{/* Volumes of a proxy: (list $ name identities). */}}
{{- define "prove.mesh.volumes" -}}
- name: mesh-config
  configMap: { name: mesh-{{ index . 1 }} }
- name: mesh-tmp
  emptyDir: { sizeLimit: 16Mi }
{{- range index . 2 }}
- name: mesh-{{ . }}
  secret: { secretName: mesh-{{ . }}, defaultMode: 0440 }
{{- end }}
{{- end }}

{{/* Its container: (list $ identities). */}}
{{- define "prove.mesh.container" -}}
{{- $root := index . 0 -}}
name: proxy
{{ include "prove.container" (list $root $root.Values.mesh.envoy) }}
command: [envoy]
args: [--config-path, /etc/envoy/envoy.json, --concurrency, "1", --disable-hot-restart, --log-level, warning]
env:
{{ include "prove.identity" $root }}
- { name: OTEL_RESOURCE_ATTRIBUTES, value: "service.instance.id=$(K8S_POD_NAME),k8s.namespace.name=$(K8S_NAMESPACE_NAME),k8s.pod.name=$(K8S_POD_NAME),k8s.container.name=proxy" }
volumeMounts:
  - { name: mesh-config, mountPath: /etc/envoy, readOnly: true }
  - { name: mesh-tmp, mountPath: /tmp }
  {{- range index . 1 }}
  - { name: mesh-{{ . }}, mountPath: /etc/mesh/{{ . }}, readOnly: true }
  {{- end }}
startupProbe:
  httpGet: { path: /ready, port: 15021 }
  periodSeconds: 1
  failureThreshold: 60
{{- end }}
