# The shop with the chart's own PostgreSQL, into a namespace that is there.
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

module "shop" {
  source = "../.."

  namespace = "prove"
  chart     = "${path.module}/../../../../../charts/prove"
  replicas  = { min = 1, max = 3 }
}

output "release" {
  description = "The release, as `helm list` shows it."
  value       = module.shop.release
}
