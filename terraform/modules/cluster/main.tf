resource "kind_cluster" "this" {
  name            = var.name
  node_image      = var.node_image
  wait_for_ready  = true
  kubeconfig_path = var.kubeconfig_path

  kind_config {
    kind        = "Cluster"
    api_version = "kind.x-k8s.io/v1alpha4"

    dynamic "node" {
      for_each = var.nodes

      content {
        role   = node.value.role
        labels = node.value.labels

        dynamic "extra_port_mappings" {
          for_each = node.value.ports

          content {
            container_port = extra_port_mappings.value.container
            host_port      = extra_port_mappings.value.host
            listen_address = extra_port_mappings.value.address
          }
        }
      }
    }
  }
}
