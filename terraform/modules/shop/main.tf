locals {
  autoscaling = { autoscaling = { enabled = true, min = var.replicas.min, max = var.replicas.max } }

  values = {
    shop        = { enabled = true }
    monitoring  = { enabled = false }
    image       = { registry = var.images.registry, tag = var.images.tag }
    persistence = { storageClass = var.storage_class }
    secrets     = { existingSecret = var.database.secret == null ? "" : var.database.secret }
    postgresql  = { enabled = var.database.secret == null, size = var.database.size }
    product     = local.autoscaling
    order       = local.autoscaling
    payment     = local.autoscaling
    telemetry   = { endpoint = var.telemetry_endpoint }
    # The module `namespace` made it.
    quota = { enabled = false }
    ingress = {
      enabled   = var.ingress != null
      host      = try(var.ingress.host, "shop.example.com")
      className = try(var.ingress.class_name, "")
      tlsSecret = try(var.ingress.tls_secret, "")
    }
  }
}

resource "helm_release" "this" {
  name      = "shop"
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
