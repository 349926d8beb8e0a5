variable "nodes" {
  description = "Number of nodes."
  type        = number
}

variable "disk_gb" {
  description = "Size of a node's disk in GB."
  type        = number
}

variable "nats" {
  description = "Number of NAT gateways, each with a public IPv4 address."
  type        = number
}

variable "volumes_gb" {
  description = "Size of all persistent volumes in GB."
  type        = number
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
}
