locals {
  state = jsondecode(file("${path.module}/../../state.s3.json"))
}

provider "aws" {
  region = local.state.region

  default_tags {
    tags = { project = "prove", environment = "production" }
  }
}

module "cluster" {
  source = "../../../modules/cluster-eks"

  name                = "prove-production"
  zones               = 3
  nat                 = "each"
  nodes               = { instance_type = "m6i.xlarge", min = 3, desired = 4, max = 8, disk_gb = 50 }
  prices              = { node_hour = 0.192 }
  volumes_gb          = 75
  admins              = var.admins
  public_access_cidrs = var.public_access_cidrs
}
