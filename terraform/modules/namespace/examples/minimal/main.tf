# A namespace for the shop, with an on-call group that may operate it.
terraform {
  required_version = ">= 1.11"

  required_providers {
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 3.0"
    }
  }
}

provider "kubernetes" {
  config_path    = "~/.kube/config"
  config_context = "kind-prove"
}

module "namespace" {
  source = "../.."

  name   = "prove"
  labels = { "app.kubernetes.io/part-of" = "prove" }
  access = {
    operators = [{ kind = "Group", name = "on-call" }]
  }
}

output "namespace" {
  description = "Install the shop in this namespace."
  value       = module.namespace.name
}
