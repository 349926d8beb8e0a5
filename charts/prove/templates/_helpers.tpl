{{/* What several templates share. Arguments are lists, the root context first. */}}

{{/* Labels of an object: (list $ name). Those of `selector` never change: they are immutable. */}}
{{- define "prove.labels" -}}
{{ include "prove.selector" . }}
app.kubernetes.io/part-of: prove
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{- define "prove.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{/* A pod by its name alone, whichever release it is of: names are unique in a namespace. */}}
{{- define "prove.podOf" -}}
app.kubernetes.io/name: {{ . }}
{{- end }}

{{/* Names of cluster-wide objects carry the namespace, so that two releases don't meet. */}}
{{- define "prove.clusterName" -}}
prove-{{ (index . 0).Release.Namespace }}-{{ index . 1 }}
{{- end }}

{{/* (list $ image): a part's own registry and tag win; only our own images have the chart's tag. */}}
{{- define "prove.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- with ($image.registry | default $root.Values.image.registry) }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}:{{ $image.tag | default $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{- define "prove.secret" -}}
{{ .Values.secrets.existingSecret | default "prove" }}
{{- end }}

{{/* Where services send telemetry to; empty: nowhere. */}}
{{- define "prove.telemetryEndpoint" -}}
{{- if .Values.telemetry.endpoint }}{{ .Values.telemetry.endpoint }}
{{- else if .Values.collector.enabled }}http://collector:4318{{ end }}
{{- end }}

{{/* The start of every pod's spec: (list $ name uid). `restricted` in all parts. Service links would
     put PRODUCT_PORT and the like into the environment, where settings are read from. */}}
{{- define "prove.pod" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ index . 1 }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 2 }}
  runAsGroup: {{ index . 2 }}
  fsGroup: {{ index . 2 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- end }}

{{/* The start of every container: (list $ values). */}}
{{- define "prove.container" -}}
{{- $root := index . 0 -}}
image: {{ include "prove.image" (list $root (index . 1).image) | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
resources: {{- toYaml (index . 1).resources | nindent 2 }}
{{- end }}

{{- define "prove.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ index . 1 }}
  labels: {{- include "prove.labels" . | nindent 4 }}
automountServiceAccountToken: false
{{- end }}

{{/* A Service: (list $ name (dict "port-name" number …)). */}}
{{- define "prove.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ index . 1 }}
  labels: {{- include "prove.labels" . | nindent 4 }}
spec:
  selector: {{- include "prove.selector" . | nindent 4 }}
  ports:
{{- range $name, $port := index . 2 }}
    - { name: {{ $name }}, port: {{ $port }}, targetPort: {{ $port }}, appProtocol: {{ ternary "grpc" "http" (hasPrefix "grpc" $name) }} }
{{- end }}
{{- end }}

{{/* A volume that outlives its pod, or not: (list $ name size), in volumeClaimTemplates' form. */}}
{{- define "prove.claims" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.persistence.enabled }}
volumeClaimTemplates:
  - metadata:
      name: data
      # No chart version: a claim template can't be changed.
      labels: {{- include "prove.selector" . | nindent 8 }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with $root.Values.persistence.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ index . 2 }}
{{- end }}
{{- end }}

{{- define "prove.dataVolume" -}}
{{- if not .Values.persistence.enabled }}
- name: data
  emptyDir: {}
{{- end }}
{{- end }}

{{/* Four fifths of a memory limit in Mi or Gi, for the Go runtime; the rest is what it doesn't see. */}}
{{- define "prove.gomemlimit" -}}
{{- $limit := .limits.memory }}
{{- $mebibytes := 0 }}
{{- if hasSuffix "Mi" $limit }}{{ $mebibytes = trimSuffix "Mi" $limit | int }}{{ end }}
{{- if hasSuffix "Gi" $limit }}{{ $mebibytes = trimSuffix "Gi" $limit | float64 | mulf 1024 | int }}{{ end }}
{{- with $mebibytes }}
- { name: GOMEMLIMIT, value: "{{ div (mul . 4) 5 }}MiB" }
{{- end }}
{{- end }}

{{/* Who a pod is, for the resource of its telemetry: by the downward API, so that the Collector needs
     no right to ask the API server for it. */}}
{{- define "prove.identity" -}}
- name: K8S_POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: K8S_POD_UID
  valueFrom: { fieldRef: { fieldPath: metadata.uid } }
- name: K8S_NODE_NAME
  valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
- name: K8S_NAMESPACE_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
{{- end }}

{{/* Restart when what a pod was told changes. */}}
{{- define "prove.checksum" -}}
{{- $root := index . 0 -}}
checksum/config: {{ include (print $root.Template.BasePath "/" (index . 1)) $root | sha256sum }}
{{- end }}
