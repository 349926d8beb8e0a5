# The cluster is known before a provider is configured with it: it was made by another root.
data "terraform_remote_state" "cluster" {
  count = var.kubeconfig == null ? 1 : 0

  backend = "local"
  config  = { path = "${path.module}/../cluster/terraform.tfstate" }
}

locals {
  kubeconfig = var.kubeconfig != null ? var.kubeconfig : {
    path    = data.terraform_remote_state.cluster[0].outputs.kubeconfig_path
    context = data.terraform_remote_state.cluster[0].outputs.context
  }
  chart = "${path.module}/../../../../charts/prove"
}

provider "kubernetes" {
  config_path    = pathexpand(local.kubeconfig.path)
  config_context = local.kubeconfig.context
}

provider "helm" {
  kubernetes = {
    config_path    = pathexpand(local.kubeconfig.path)
    config_context = local.kubeconfig.context
  }
}

module "platform" {
  source = "../../common"

  environment = "dev"
  namespace   = var.namespace
  chart       = local.chart
  profile     = file("${local.chart}/values-kind.yaml")
  images      = { tag = var.tag }
  replicas    = { min = 1, max = 3 }
  alerts      = { profile = "drill" }
  off         = var.off
  wait        = var.wait
  access      = { operators = [{ kind = "Group", name = "developers" }] }
}
