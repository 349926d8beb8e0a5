# With a cluster: KUBE_CONFIG_PATH names its kubeconfig. What is made is removed at the end.
variables {
  name   = "prove-terraform-test"
  access = { operators = [{ kind = "Group", name = "on-call" }] }
}

run "planned" {
  command = plan

  assert {
    condition     = kubernetes_namespace_v1.this.metadata[0].name == "prove-terraform-test"
    error_message = "The plan is of another namespace."
  }
}

run "applied" {
  command = apply

  assert {
    condition     = kubernetes_namespace_v1.this.metadata[0].uid != ""
    error_message = "The server gave the namespace no identity."
  }

  assert {
    condition     = kubernetes_resource_quota_v1.this.metadata[0].resource_version != "" && kubernetes_limit_range_v1.this.metadata[0].resource_version != ""
    error_message = "The server holds no quota or limit range."
  }

  assert {
    condition     = sort(keys(kubernetes_role_binding_v1.this)) == tolist(["operator"])
    error_message = "The operators have no role."
  }
}

run "applied_again" {
  command = plan

  assert {
    condition     = kubernetes_namespace_v1.this.metadata[0].uid == run.applied.uid
    error_message = "A second plan replaces the namespace."
  }
}
