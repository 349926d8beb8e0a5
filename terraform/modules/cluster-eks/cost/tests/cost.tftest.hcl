# The figures of docs/how-to/run-on-aws.md. No provider is needed: this is arithmetic.
variables {
  prices = {
    control_plane_hour = 0.10
    node_hour          = 0.096
    nat_hour           = 0.045
    ipv4_hour          = 0.005
    disk_gb_month      = 0.08
    kms_key_month      = 1.00
  }
}

run "staging" {
  command = plan

  variables {
    nodes      = 3
    disk_gb    = 30
    nats       = 1
    volumes_gb = 20
  }

  assert {
    condition     = output.cost.month["control plane"] == 73 && output.cost.month["nodes"] == 210.24 && output.cost.month["NAT gateways"] == 36.5
    error_message = "A part isn't its number times its price times 730 hours."
  }

  assert {
    condition     = output.cost.month["disks"] == 8.8 && output.cost.month.total == 329.54 && output.cost.day.total == 10.83
    error_message = "The total isn't the sum of its parts."
  }
}

run "production" {
  command = plan

  variables {
    nodes      = 4
    disk_gb    = 50
    nats       = 3
    volumes_gb = 75
    prices = {
      control_plane_hour = 0.10
      node_hour          = 0.192
      nat_hour           = 0.045
      ipv4_hour          = 0.005
      disk_gb_month      = 0.08
      kms_key_month      = 1.00
    }
  }

  assert {
    condition     = output.cost.month.total == 766.14 && output.cost.day.total == 25.19
    error_message = "The total isn't the sum of its parts."
  }
}
