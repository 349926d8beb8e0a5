# Without Docker: the provider is mocked, so what is checked is what kind would be asked for.
mock_provider "kind" {
  mock_resource "kind_cluster" {
    defaults = {
      kubeconfig_path = "/home/somebody/.kube/config"
      endpoint        = "https://127.0.0.1:6443"
    }
  }
}

run "one_node_by_default" {
  command = plan

  assert {
    condition     = [for node in kind_cluster.this.kind_config[0].node : node.role] == ["control-plane"]
    error_message = "The default isn't one control-plane node."
  }

  assert {
    condition     = kind_cluster.this.wait_for_ready
    error_message = "What depends on the cluster would begin before it is ready."
  }
}

run "applied" {
  command = apply

  variables {
    name = "shop"
    nodes = [
      { role = "control-plane", ports = [{ container = 30080, host = 8080 }] },
      { role = "worker", labels = { tier = "shop" } },
    ]
  }

  assert {
    condition     = output.context == "kind-shop"
    error_message = "The context isn't the one kind writes."
  }

  assert {
    condition     = kind_cluster.this.kind_config[0].node[0].extra_port_mappings[0].listen_address == "127.0.0.1"
    error_message = "A port is open to other machines unless asked."
  }

  assert {
    condition     = kind_cluster.this.kind_config[0].node[1].labels["tier"] == "shop"
    error_message = "The worker has no label."
  }
}

run "a_name_with_a_dot" {
  command         = plan
  expect_failures = [var.name]

  variables {
    name = "prove.dev"
  }
}

run "too_old_a_kubernetes" {
  command         = plan
  expect_failures = [var.node_image]

  variables {
    node_image = "kindest/node:v1.29.4"
  }
}

run "no_control_plane" {
  command         = plan
  expect_failures = [var.nodes]

  variables {
    nodes = [{ role = "worker" }]
  }
}

run "one_port_for_two" {
  command         = plan
  expect_failures = [var.nodes]

  variables {
    nodes = [
      { role = "control-plane", ports = [{ container = 80, host = 8080 }] },
      { role = "worker", ports = [{ container = 80, host = 8080 }] },
    ]
  }
}

run "a_path_with_a_tilde" {
  command         = plan
  expect_failures = [var.kubeconfig_path]

  variables {
    kubeconfig_path = "~/.kube/config"
  }
}
