# A cluster in two zones with one NAT gateway: the cheapest that still is what production is.
terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

provider "aws" {
  region = "us-east-1"
}

module "cluster" {
  source = "../.."

  name                = "prove-try"
  zones               = 2
  nodes               = { min = 2, desired = 2, max = 4 }
  public_access_cidrs = ["203.0.113.0/24"]
  admins              = ["arn:aws:iam::123456789012:role/platform"]
}

output "cost" {
  description = "USD a day and a month, by part."
  value       = module.cluster.cost
}
