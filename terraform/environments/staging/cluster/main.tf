locals {
  state = jsondecode(file("${path.module}/../../state.s3.json"))
}

provider "aws" {
  region = local.state.region

  default_tags {
    tags = { project = "prove", environment = "staging" }
  }
}

module "cluster" {
  source = "../../../modules/cluster-eks"

  name                = "prove-staging"
  zones               = 3
  nat                 = "one"
  nodes               = { instance_type = "m6i.large", min = 3, desired = 3, max = 6, disk_gb = 30 }
  prices              = { node_hour = 0.096 }
  volumes_gb          = 20
  admins              = var.admins
  public_access_cidrs = var.public_access_cidrs
}
