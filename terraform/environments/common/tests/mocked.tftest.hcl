# The wiring of the modules, as every environment has it, with mocked providers.
mock_provider "helm" {}
mock_provider "kubernetes" {}

variables {
  environment     = "staging"
  chart           = "charts/prove"
  profile         = "environment: production"
  database_secret = "prove-secrets"
  replicas        = { min = 2, max = 6 }
}

run "wired" {
  command = apply

  assert {
    condition     = output.namespace == "prove" && [for release in output.releases : release.name] == ["monitoring", "shop"]
    error_message = "The platform isn't a namespace and two releases in it."
  }

  assert {
    condition     = output.url == null
    error_message = "There is an address without an Ingress."
  }
}

run "a_database_without_a_backup_is_for_dev" {
  command         = plan
  expect_failures = [var.database_secret]

  variables {
    database_secret = null
  }
}

run "an_unknown_environment" {
  command         = plan
  expect_failures = [var.environment]

  variables {
    environment = "prod"
  }
}
