# Without a cluster: the provider is mocked, so what is checked is what Helm would be given.
mock_provider "helm" {}

variables {
  namespace = "prove"
  chart     = "charts/prove"
}

run "the_monitoring_part_alone" {
  command = plan

  assert {
    condition     = yamldecode(helm_release.this.values[0]).shop.enabled == false
    error_message = "The shop would be installed too."
  }

  assert {
    condition     = alltrue([for part in ["prometheus", "jaeger", "grafana", "canary"] : yamldecode(helm_release.this.values[0])[part].enabled])
    error_message = "A part is off that nobody turned off."
  }

  assert {
    condition     = !can(yamldecode(helm_release.this.values[0]).prometheus.size)
    error_message = "What wasn't said would replace what a profile says."
  }

  assert {
    condition     = helm_release.this.wait && helm_release.this.atomic
    error_message = "A release that doesn't come up would be left half installed."
  }
}

run "applied_without_what_the_cluster_has" {
  command = apply

  variables {
    off       = ["grafana", "collector"]
    retention = { size = "20Gi", max_mb = 16000 }
    values    = ["jaeger: { resources: { limits: { memory: 1Gi } } }"]
  }

  assert {
    condition = (
      yamldecode(helm_release.this.values[1]).grafana.enabled == false
      && yamldecode(helm_release.this.values[1]).prometheus == { enabled = true, size = "20Gi", maxMb = 16000 }
    )
    error_message = "The values aren't those asked for."
  }

  assert {
    condition     = helm_release.this.values[0] == var.values[0]
    error_message = "A profile doesn't come first: it would win over what the variables say."
  }

  assert {
    condition     = output.telemetry_endpoint == "" && output.release.name == "monitoring"
    error_message = "Services would send to a Collector that isn't there."
  }
}

run "an_unknown_part" {
  command         = plan
  expect_failures = [var.off]

  variables {
    off = ["loki"]
  }
}

run "a_tag_that_moves" {
  command         = plan
  expect_failures = [var.images]

  variables {
    images = { tag = "latest" }
  }
}

run "an_unknown_profile" {
  command         = plan
  expect_failures = [var.alerts]

  variables {
    alerts = { profile = "fast" }
  }
}

run "too_little_to_keep" {
  command         = plan
  expect_failures = [var.retention]

  variables {
    retention = { size = "1Gi", max_mb = 10 }
  }
}

run "values_that_are_no_yaml" {
  command         = plan
  expect_failures = [var.values]

  variables {
    values = ["a: [1"]
  }
}

run "no_time_to_pull_an_image" {
  command         = plan
  expect_failures = [var.wait]

  variables {
    wait = { timeout_s = 5 }
  }
}
