# Without a cluster: the provider is mocked, so what is checked is what Helm would be given.
mock_provider "helm" {}

variables {
  namespace = "prove"
  chart     = "charts/prove"
}

run "the_shop_alone_with_a_database_of_its_own" {
  command = plan

  assert {
    condition     = yamldecode(helm_release.this.values[0]).monitoring.enabled == false
    error_message = "The monitoring part would be installed too."
  }

  assert {
    condition     = yamldecode(helm_release.this.values[0]).postgresql.enabled && !yamldecode(helm_release.this.values[0]).quota.enabled
    error_message = "No database, or a second quota beside that of the namespace."
  }

  assert {
    condition     = output.url == null && helm_release.this.atomic
    error_message = "There is an address without an Ingress, or a failed release would stay half installed."
  }
}

run "applied_as_in_production" {
  command = apply

  variables {
    database           = { secret = "prove-secrets" }
    images             = { registry = "registry.example.com/shop", tag = "1.4.2" }
    ingress            = { host = "shop.example.com", class_name = "nginx", tls_secret = "shop-tls" }
    replicas           = { min = 3, max = 20 }
    telemetry_endpoint = "http://collector.prove:4318"
    values             = ["environment: production"]
  }

  assert {
    condition = (
      yamldecode(helm_release.this.values[1]).postgresql.enabled == false
      && yamldecode(helm_release.this.values[1]).secrets.existingSecret == "prove-secrets"
    )
    error_message = "The database isn't the one the Secret names."
  }

  assert {
    condition = alltrue([
      for service in ["product", "order", "payment"] :
      yamldecode(helm_release.this.values[1])[service].autoscaling.min == 3
    ])
    error_message = "A service has fewer replicas than asked for."
  }

  assert {
    condition     = output.url == "https://shop.example.com" && output.release.name == "shop"
    error_message = "The outputs aren't those of the release."
  }
}

run "a_password_instead_of_a_name" {
  command         = plan
  expect_failures = [var.database]

  variables {
    database = { secret = "postgresql://shop:hunter2@db/shop" }
  }
}

run "no_replica" {
  command         = plan
  expect_failures = [var.replicas]

  variables {
    replicas = { min = 0, max = 1 }
  }
}

run "a_host_that_is_no_name" {
  command         = plan
  expect_failures = [var.ingress]

  variables {
    ingress = { host = "https://shop.example.com/" }
  }
}

run "a_tag_that_moves" {
  command         = plan
  expect_failures = [var.images]

  variables {
    images = { tag = "latest" }
  }
}

run "an_endpoint_with_a_path" {
  command         = plan
  expect_failures = [var.telemetry_endpoint]

  variables {
    telemetry_endpoint = "http://collector:4318/v1/traces"
  }
}

run "no_time_to_pull_an_image" {
  command         = plan
  expect_failures = [var.wait]

  variables {
    wait = { timeout_s = 5 }
  }
}
