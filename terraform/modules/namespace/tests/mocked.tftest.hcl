# Without a cluster: the provider is mocked, so what is checked is what would be asked of one.
mock_provider "kubernetes" {}

variables {
  name = "prove-test"
}

run "restricted_by_default" {
  command = plan

  assert {
    condition = alltrue([
      for mode in ["enforce", "warn", "audit"] :
      kubernetes_namespace_v1.this.metadata[0].labels["pod-security.kubernetes.io/${mode}"] == "restricted"
    ])
    error_message = "Pod Security isn't restricted in every mode."
  }

  assert {
    condition     = kubernetes_resource_quota_v1.this.spec[0].hard["limits.memory"] == "16Gi"
    error_message = "The quota isn't the default one."
  }

  assert {
    condition     = length(kubernetes_role_v1.this) == 3 && length(kubernetes_role_binding_v1.this) == 0
    error_message = "There are three roles, and nobody has one who wasn't named."
  }
}

run "least_privilege" {
  command = plan

  assert {
    condition = alltrue(flatten([
      for role in kubernetes_role_v1.this : [for rule in role.rule : [for verb in rule.verbs : !contains(["*", "escalate", "bind", "impersonate"], verb)]]
    ]))
    error_message = "A role may do more than is written out, or grant what it hasn't."
  }

  assert {
    condition = alltrue(flatten([
      for name in ["viewer", "operator"] : [for rule in kubernetes_role_v1.this[name].rule : !contains(rule.resources, "secrets")]
    ]))
    error_message = "Secrets are the deployers' alone."
  }

  assert {
    condition = alltrue(flatten([
      for rule in kubernetes_role_v1.this["viewer"].rule : [for verb in rule.verbs : contains(["get", "list", "watch"], verb)]
    ]))
    error_message = "A viewer may change something."
  }
}

run "applied" {
  command = apply

  variables {
    labels = { "app.kubernetes.io/part-of" = "prove" }
    access = {
      operators = [{ kind = "Group", name = "on-call" }]
      deployers = [{ kind = "ServiceAccount", name = "ci", namespace = "ci" }]
    }
  }

  assert {
    condition     = output.name == "prove-test" && output.labels["app.kubernetes.io/part-of"] == "prove"
    error_message = "The outputs aren't those of the namespace."
  }

  assert {
    condition     = sort(keys(kubernetes_role_binding_v1.this)) == tolist(["deployer", "operator"])
    error_message = "Who was named has no role, or somebody else has one."
  }

  assert {
    condition     = kubernetes_role_binding_v1.this["deployer"].subject[0].namespace == "ci"
    error_message = "A ServiceAccount is bound without its namespace."
  }
}

run "a_name_kubernetes_keeps_for_itself" {
  command         = plan
  expect_failures = [var.name]

  variables {
    name = "kube-system"
  }
}

run "a_name_in_capitals" {
  command         = plan
  expect_failures = [var.name]

  variables {
    name = "Prove"
  }
}

run "an_unknown_standard" {
  command         = plan
  expect_failures = [var.pod_security]

  variables {
    pod_security = { level = "strict" }
  }
}

run "a_quantity_with_a_space" {
  command         = plan
  expect_failures = [var.quota]

  variables {
    quota = { limits_memory = "16 Gi" }
  }
}

run "a_limit_of_something_else" {
  command         = plan
  expect_failures = [var.container]

  variables {
    container = { max = { gpu = "1" } }
  }
}

run "a_service_account_of_nowhere" {
  command         = plan
  expect_failures = [var.access]

  variables {
    access = { deployers = [{ kind = "ServiceAccount", name = "ci" }] }
  }
}
