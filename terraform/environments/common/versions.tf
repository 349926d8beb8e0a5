terraform {
  required_version = ">= 1.11"

  # Used by the modules alone; named here so that tests can mock them.
  required_providers {
    # tflint-ignore: terraform_unused_required_providers
    helm = {
      source  = "hashicorp/helm"
      version = "~> 3.0"
    }
    # tflint-ignore: terraform_unused_required_providers
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 3.0"
    }
  }
}
