locals {
  state = jsondecode(file("${path.module}/../../state.s3.json"))
  chart = "${path.module}/../../../../charts/prove"
}

# The cluster is known before a provider is configured with it: it was made by another root.
data "terraform_remote_state" "cluster" {
  backend = "s3"
  config = {
    bucket = local.state.bucket
    region = local.state.region
    key    = "production/cluster.tfstate"
  }
}

provider "aws" {
  region = data.terraform_remote_state.cluster.outputs.region

  default_tags {
    tags = { project = "prove", environment = "production" }
  }
}

data "aws_eks_cluster" "this" {
  name = data.terraform_remote_state.cluster.outputs.name
}

# A token of 15 minutes, asked for again by every run.
data "aws_eks_cluster_auth" "this" {
  name = data.terraform_remote_state.cluster.outputs.name
}

provider "kubernetes" {
  host                   = data.aws_eks_cluster.this.endpoint
  cluster_ca_certificate = base64decode(data.aws_eks_cluster.this.certificate_authority[0].data)
  token                  = data.aws_eks_cluster_auth.this.token
}

provider "helm" {
  kubernetes = {
    host                   = data.aws_eks_cluster.this.endpoint
    cluster_ca_certificate = base64decode(data.aws_eks_cluster.this.certificate_authority[0].data)
    token                  = data.aws_eks_cluster_auth.this.token
  }
}

module "platform" {
  source = "../../common"

  environment     = "production"
  chart           = local.chart
  profile         = file("${local.chart}/values-production.yaml")
  images          = var.images
  database_secret = "prove-secrets"
  ingress         = { host = var.host, class_name = "nginx", tls_secret = "shop-tls" }
  replicas        = { min = 3, max = 20 }
  quota           = { requests_cpu = "20", requests_memory = "24Gi", limits_cpu = "80", limits_memory = "48Gi", requests_storage = "100Gi", pods = "100" }
  alerts          = { existing_secret = "alert-receivers" }
  access = {
    viewers   = [{ kind = "Group", name = "developers" }]
    operators = [{ kind = "Group", name = "on-call" }]
    deployers = [{ kind = "Group", name = "ci" }]
  }
}
