# The monitoring part into a namespace that is there, without Grafana.
terraform {
  required_version = ">= 1.11"

  required_providers {
    helm = {
      source  = "hashicorp/helm"
      version = "~> 3.0"
    }
  }
}

provider "helm" {
  kubernetes = {
    config_path    = "~/.kube/config"
    config_context = "kind-prove"
  }
}

module "monitoring" {
  source = "../.."

  namespace = "prove"
  chart     = "${path.module}/../../../../../charts/prove"
  off       = ["grafana"]
}

output "telemetry_endpoint" {
  description = "Where the shop sends its telemetry."
  value       = module.monitoring.telemetry_endpoint
}
