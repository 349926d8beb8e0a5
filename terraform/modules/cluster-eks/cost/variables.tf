variable "nodes" {
  description = "Number of nodes."
  type        = number

  validation {
    condition     = var.nodes >= 0
    error_message = "There can't be fewer than none."
  }
}

variable "disk_gb" {
  description = "Size of a node's disk in GB."
  type        = number

  validation {
    condition     = var.disk_gb >= 0
    error_message = "There can't be fewer than none."
  }
}

variable "nats" {
  description = "Number of NAT gateways, each with a public IPv4 address."
  type        = number

  validation {
    condition     = var.nats >= 0
    error_message = "There can't be fewer than none."
  }
}

variable "volumes_gb" {
  description = "Size of all persistent volumes in GB."
  type        = number

  validation {
    condition     = var.volumes_gb >= 0
    error_message = "There can't be fewer than none."
  }
}

variable "prices" {
  description = "List prices in USD: an hour of the control plane, a node, a NAT gateway and an IPv4 address; a month of a GB of disk and of a key."
  type = object({
    control_plane_hour = number
    node_hour          = number
    nat_hour           = number
    ipv4_hour          = number
    disk_gb_month      = number
    kms_key_month      = number
  })

  validation {
    condition     = alltrue([for price in values(var.prices) : price >= 0])
    error_message = "A price isn't negative."
  }
}
