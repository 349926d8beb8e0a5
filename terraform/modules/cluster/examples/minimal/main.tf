# One node, reachable at the context kind-prove.
terraform {
  required_version = ">= 1.11"

  required_providers {
    kind = {
      source  = "tehcyx/kind"
      version = "~> 0.11"
    }
  }
}

provider "kind" {}

module "cluster" {
  source = "../.."

  name = "prove"
}

output "context" {
  description = "For `provectl up --on context` and kubectl."
  value       = module.cluster.context
}
