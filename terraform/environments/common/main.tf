# What the platforms of all environments have in common; their roots say what differs.
module "namespace" {
  source = "../../modules/namespace"

  name   = var.namespace
  quota  = var.quota
  access = var.access
  labels = {
    "app.kubernetes.io/part-of" = "prove"
    "environment"               = var.environment
  }
}

module "monitoring" {
  source = "../../modules/monitoring"

  namespace = module.namespace.name
  chart     = var.chart
  images    = var.images
  values    = [var.profile]
  retention = var.retention
  alerts    = var.alerts
  off       = var.off
  wait      = var.wait

  # The quota is there before what it counts.
  depends_on = [module.namespace]
}

module "shop" {
  source = "../../modules/shop"

  namespace          = module.namespace.name
  chart              = var.chart
  images             = var.images
  values             = [var.profile]
  database           = { secret = var.database_secret }
  replicas           = var.replicas
  telemetry_endpoint = module.monitoring.telemetry_endpoint
  ingress            = var.ingress
  wait               = var.wait

  depends_on = [module.namespace]
}
