locals {
  parts = [
    "alertmanager", "blackbox", "canary", "collector", "grafana", "jaeger", "kubeStateMetrics",
    "prometheus", "victorialogs",
  ]

  # null: not said here, so the values before it hold.
  said = merge({ for part in local.parts : part => { enabled = !contains(var.off, part) } }, {
    shop        = { enabled = false }
    monitoring  = { enabled = true }
    image       = { registry = var.images.registry, tag = var.images.tag }
    persistence = { storageClass = var.storage_class }
    alerts      = { profile = var.alerts.profile }
    prometheus = {
      enabled = !contains(var.off, "prometheus")
      size    = try(var.retention.size, null)
      maxMb   = try(var.retention.max_mb, null)
    }
    alertmanager = {
      enabled        = !contains(var.off, "alertmanager")
      webhookUrl     = var.alerts.webhook_url
      existingSecret = var.alerts.existing_secret
    }
  })
  values = { for part, said in local.said : part => { for name, value in said : name => value if value != null } }
}

resource "helm_release" "this" {
  name      = "monitoring"
  namespace = var.namespace
  chart     = var.chart
  version   = var.chart_version
  values    = concat(var.values, [yamlencode(local.values)])

  wait    = var.wait.enabled
  timeout = var.wait.timeout_s
  # A release that didn't come up is taken back, so that the next apply begins from what worked.
  atomic      = var.wait.enabled
  max_history = 10
}
