variable "name" {
  description = "Name of the cluster and prefix of everything that is made for it."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z][-a-zA-Z0-9]{0,37}$", var.name))
    error_message = "A name begins with a letter and has at most 38 letters, digits and hyphens: IAM roles are named after it."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes minor version. One out of standard support costs six times as much: move on within 14 months."
  type        = string
  default     = "1.34"

  validation {
    condition     = can(regex("^1\\.(3[1-9]|[4-9][0-9])$", var.kubernetes_version))
    error_message = "The chart needs Kubernetes 1.31 or newer: a minor such as 1.34."
  }
}

variable "cidr" {
  description = "IPv4 addresses of the VPC: a /16, divided into a public and a private /20 for each zone."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.cidr)) && endswith(var.cidr, "/16")
    error_message = "The VPC is an IPv4 /16, such as 10.40.0.0/16."
  }
}

variable "zones" {
  description = "Number of availability zones: EKS asks for two, three let one fail while another is drained."
  type        = number
  default     = 3

  validation {
    condition     = contains([2, 3], var.zones)
    error_message = "Two or three zones."
  }
}

variable "nat" {
  description = "NAT gateways: `one` for all zones (cheaper, and they fail with that zone), or one in `each`."
  type        = string
  default     = "one"

  validation {
    condition     = contains(["one", "each"], var.nat)
    error_message = "`one` or `each`."
  }
}

variable "nodes" {
  description = "The managed node group: its instance type (amd64, as the images are built here), price group (`ON_DEMAND` or `SPOT`), numbers of nodes and size of a node's disk in GB."
  type = object({
    instance_type = optional(string, "m6i.large")
    capacity_type = optional(string, "ON_DEMAND")
    min           = optional(number, 3)
    desired       = optional(number, 3)
    max           = optional(number, 6)
    disk_gb       = optional(number, 30)
  })
  default = {}

  validation {
    condition     = contains(["ON_DEMAND", "SPOT"], var.nodes.capacity_type)
    error_message = "The price group is ON_DEMAND or SPOT."
  }

  validation {
    condition     = var.nodes.min >= 1 && var.nodes.min <= var.nodes.desired && var.nodes.desired <= var.nodes.max
    error_message = "At least one node, and min <= desired <= max."
  }

  validation {
    condition     = var.nodes.disk_gb >= 20
    error_message = "A node's disk holds its images: 20 GB at least."
  }
}

variable "public_access_cidrs" {
  description = "From where the API server can be reached over the internet; empty: from inside the VPC alone."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.public_access_cidrs : can(cidrnetmask(cidr))])
    error_message = "Each is an IPv4 range such as 203.0.113.0/24."
  }

  validation {
    condition     = !contains(var.public_access_cidrs, "0.0.0.0/0")
    error_message = "The API server isn't opened to everybody: name your own addresses."
  }
}

variable "admins" {
  description = "ARNs of the IAM roles and users that are administrators of the cluster. Who creates it isn't one by itself."
  type        = set(string)

  validation {
    condition     = length(var.admins) > 0 && alltrue([for arn in var.admins : can(regex("^arn:aws[-a-z]*:iam::[0-9]{12}:(role|user)/", arn))])
    error_message = "At least one ARN of an IAM role or user, such as arn:aws:iam::123456789012:role/platform."
  }
}

variable "prices" {
  description = "List prices in USD that the output `cost` is computed from: us-east-1, mid-2026, without tax. A node's is that of the instance type."
  type = object({
    control_plane_hour = optional(number, 0.10)
    node_hour          = optional(number, 0.096)
    nat_hour           = optional(number, 0.045)
    ipv4_hour          = optional(number, 0.005)
    disk_gb_month      = optional(number, 0.08)
    kms_key_month      = optional(number, 1.00)
  })
  default = {}

  validation {
    condition     = alltrue([for price in values(var.prices) : price >= 0])
    error_message = "A price isn't negative."
  }
}

variable "volumes_gb" {
  description = "Size of the shop's and the monitoring's volumes together, in GB: for the cost alone."
  type        = number
  default     = 20

  validation {
    condition     = var.volumes_gb >= 0
    error_message = "A size isn't negative."
  }
}

variable "tags" {
  description = "Tags of everything that is made."
  type        = map(string)
  default     = {}
}
