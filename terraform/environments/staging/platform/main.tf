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
    key    = "staging/cluster.tfstate"
  }
}

provider "aws" {
  region = data.terraform_remote_state.cluster.outputs.region

  default_tags {
    tags = { project = "prove", environment = "staging" }
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

  environment     = "staging"
  chart           = local.chart
  profile         = file("${local.chart}/values-production.yaml")
  images          = var.images
  database_secret = "prove-secrets"
  ingress         = { host = var.host, class_name = "nginx", tls_secret = "shop-tls" }
  replicas        = { min = 2, max = 6 }
  retention       = { size = "10Gi", max_mb = 8000 }
  access = {
    operators = [{ kind = "Group", name = "developers" }]
    deployers = [{ kind = "Group", name = "ci" }]
  }
}
