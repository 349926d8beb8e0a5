provider "kind" {}

locals {
  # The one description of the cluster, which `provectl up --on kind` uses too.
  kind = yamldecode(file("${path.module}/../../../../k8s/kind.yaml"))
}

module "cluster" {
  source = "../../../modules/cluster"

  name       = local.kind.name
  node_image = var.node_image
  nodes = [for node in local.kind.nodes : {
    role   = node.role
    labels = try(node.labels, {})
    ports = [for port in try(node.extraPortMappings, []) : {
      container = port.containerPort
      host      = port.hostPort
      address   = try(port.listenAddress, "127.0.0.1")
    }]
  }]
  kubeconfig_path = var.kubeconfig_path != null ? pathexpand(var.kubeconfig_path) : abspath("${path.module}/kubeconfig")
}
