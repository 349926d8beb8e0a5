locals {
  # AWS's own convention: 365 days of 24 hours, a twelfth.
  hours_a_month = 730

  hours = {
    "control plane" = var.prices.control_plane_hour
    "nodes"         = var.nodes * var.prices.node_hour
    "NAT gateways"  = var.nats * (var.prices.nat_hour + var.prices.ipv4_hour)
    "disks"         = (var.nodes * var.disk_gb + var.volumes_gb) * var.prices.disk_gb_month / local.hours_a_month
    "key"           = var.prices.kms_key_month / local.hours_a_month
  }
}
