{{/* The three services of the shop: (dict "root" $ "name" "product" "port" 8001 "env" (list …)); `go` is
     true for one in Go. */}}

{{- define "prove.shop.env" -}}
{{- $root := .root -}}
{{- if include "prove.mesh.on" $root }}
- { name: HOST, value: 127.0.0.1 }
- { name: PORT, value: "{{ add 10000 .port }}" }
{{- else }}
- { name: HOST, value: 0.0.0.0 }
- { name: PORT, value: "{{ .port }}" }
{{- end }}
{{- if $root.Values.postgresql.enabled }}
- name: DATABASE_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ include "prove.secret" $root }}, key: {{ .name }}-password } }
- { name: DATABASE_URL, value: "postgresql://{{ .name }}:$(DATABASE_PASSWORD)@postgresql:5432/{{ .name }}" }
{{- else }}
- name: DATABASE_URL
  valueFrom: { secretKeyRef: { name: {{ include "prove.secret" $root }}, key: {{ .name }}-database-url } }
{{- end }}
- { name: MIGRATE_ON_START, value: "false" }
- { name: SHUTDOWN_GRACE_S, value: "{{ $root.Values.shutdown.graceSeconds }}" }
- { name: ADMIN_TOKEN_FILE, value: /etc/prove/admin-token }
- { name: FAULTS_FILE, value: /tmp/faults.json }
{{ include "prove.identity" $root }}
{{- with include "prove.telemetryEndpoint" $root }}
- { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }} }
- { name: OTEL_EXPORTER_OTLP_PROTOCOL, value: http/protobuf }
- name: OTEL_RESOURCE_ATTRIBUTES
  value: "deployment.environment.name={{ $root.Values.environment }},k8s.namespace.name=$(K8S_NAMESPACE_NAME),k8s.deployment.name={{ $.name }},k8s.pod.name=$(K8S_POD_NAME),k8s.pod.uid=$(K8S_POD_UID),k8s.node.name=$(K8S_NODE_NAME),k8s.container.name={{ $.name }}"
- { name: OTEL_METRIC_EXPORT_INTERVAL, value: "{{ ternary 1000 5000 (eq $root.Values.alerts.profile "drill") }}" }
{{- else }}
- { name: OTEL_SDK_DISABLED, value: "true" }
{{- end }}
{{- if .go }}{{ include "prove.gomemlimit" .values.resources }}{{ end }}
{{- range .env }}
- { name: {{ .name }}, value: {{ .value | quote }} }
{{- end }}
{{- range $name, $value := .values.env }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end }}

{{- define "prove.shop.mounts" -}}
- { name: tmp, mountPath: /tmp }
- { name: admin-token, mountPath: /etc/prove, readOnly: true }
{{- end }}

{{- define "prove.shop" -}}
{{- $root := .root -}}{{- $id := list .root .name -}}
{{- $values := index .root.Values .name -}}
{{- $env := include "prove.shop.env" (merge (dict "values" $values) .) -}}
{{- $pause := $root.Values.shutdown.preStopSeconds -}}
{{- if include "prove.mesh.on" $root }}{{ $pause = $root.Values.mesh.envoy.preStopSeconds }}{{ end -}}
{{ include "prove.account" $id }}
---
{{ include "prove.service" (list $root .name (dict "http" .port)) }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  labels: {{- include "prove.labels" $id | nindent 4 }}
spec:
  {{- if not $values.autoscaling.enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  # A rollout that gets nowhere is reported as failed by then, and rolled back by `--rollback-on-failure`.
  progressDeadlineSeconds: 300
  minReadySeconds: 2
  strategy:
    type: RollingUpdate
    rollingUpdate: { maxSurge: 1, maxUnavailable: 0 }
  selector:
    matchLabels: {{- include "prove.selector" $id | nindent 6 }}
  template:
    metadata:
      labels: {{- include "prove.labels" $id | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ .name }}
        {{- if include "prove.mesh.on" $root }}
        checksum/mesh: {{ include "prove.mesh.config" $id | sha256sum }}
        {{- end }}
    spec:
      {{- include "prove.pod" (list $root .name 65532) | nindent 6 }}
      # The preStop pause, the grace period of the process, and time to be reaped. The longest request
      # is a payment that waits for its outcome: it ends by itself 5 s before the grace period does.
      # A checkout ends after CHECKOUT_TIMEOUT_S, 10 s.
      terminationGracePeriodSeconds: {{ add $pause $root.Values.shutdown.graceSeconds 5 }}
      topologySpreadConstraints:
        {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          # Rather two on one node than one that is not there.
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "prove.selector" $id | nindent 14 }}
          matchLabelKeys: [pod-template-hash]
        {{- end }}
      volumes:
        - name: tmp
          emptyDir: { sizeLimit: 256Mi }
        - name: admin-token
          secret:
            secretName: {{ include "prove.secret" $root }}
            defaultMode: 0440
            items: [{ key: admin-token, path: admin-token }]
        {{- if include "prove.mesh.on" $root }}
        {{- include "prove.mesh.volumes" (list $root .name (list .name)) | nindent 8 }}
        {{- end }}
      # Takes as long as it takes, under an advisory lock: replicas that start together wait for each
      # other. Migrations only add (expand), until a later release removes (contract): the old
      # version goes on serving meanwhile, and can be rolled back to.
      initContainers:
        {{- if include "prove.mesh.on" $root }}
        # A sidecar: up before the service, and down after it.
        - restartPolicy: Always
          {{- include "prove.mesh.container" (list $root (list .name)) | nindent 10 }}
          ports:
            - { name: http, containerPort: {{ .port }} }
            - { name: health, containerPort: 15021 }
        {{- end }}
        {{- if $root.Values.postgresql.enabled }}
        # At the first install all start at once; without it `migrate` would fail, and be tried again
        # after ever longer pauses.
        - name: wait-for-database
          {{- include "prove.container" (list $root (dict "image" $root.Values.postgresql.image "resources" $values.resources)) | nindent 10 }}
          command: [/bin/sh, -c, "until pg_isready -q -h postgresql -U postgres -d postgres -t 2; do sleep 1; done"]
        {{- end }}
        - name: migrate
          {{- include "prove.container" (list $root $values) | nindent 10 }}
          args: [migrate]
          env: {{- $env | nindent 12 }}
          volumeMounts: {{- include "prove.shop.mounts" . | nindent 12 }}
      containers:
        - name: {{ .name }}
          {{- include "prove.container" (list $root $values) | nindent 10 }}
          args: [serve]
          {{- $health := "http" }}
          {{- if include "prove.mesh.on" $root }}
          {{- $health = "15021" }}
          {{- else }}
          ports:
            - { name: http, containerPort: {{ .port }} }
          {{- end }}
          env: {{- $env | nindent 12 }}
          volumeMounts: {{- include "prove.shop.mounts" . | nindent 12 }}
          # Imports on a busy node take a while: two minutes until it is given up.
          startupProbe:
            httpGet: { path: /startupz, port: {{ $health }} }
            periodSeconds: 2
            timeoutSeconds: 2
            failureThreshold: 60
          # Asks nothing but whether the process answers: a restart mends no database. Half a minute,
          # so that a pause or a burst of load is not made worse by one.
          livenessProbe:
            httpGet: { path: /livez, port: {{ $health }} }
            periodSeconds: 10
            timeoutSeconds: 3
            failureThreshold: 3
          # Its own database and schema, never its peers: one payment fault must not take all out.
          readinessProbe:
            httpGet: { path: /readyz, port: {{ $health }} }
            periodSeconds: 3
            timeoutSeconds: 2
            failureThreshold: 2
          lifecycle:
            # Until every node has heard that this pod gets no more requests; it serves on meanwhile.
            # By the kubelet, not by `sleep`: the image has none.
            preStop: { sleep: { seconds: {{ $pause }} } }
{{- end }}
