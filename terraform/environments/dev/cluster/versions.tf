terraform {
  required_version = ">= 1.11"

  required_providers {
    kind = {
      source  = "tehcyx/kind"
      version = "~> 0.11"
    }
  }

  # One developer's cluster, on their machine: so is its state.
  backend "local" {}
}
