variable "name" {
  description = "Name of the cluster; its context is `kind-<name>`."
  type        = string
  default     = "prove"

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$", var.name))
    error_message = "A cluster's name is at most 50 lower-case letters, digits and hyphens: containers are named after it."
  }
}

variable "node_image" {
  description = "Image of the nodes, `kindest/node:v<version>`, best with its digest; null: the one the provider's kind was released with."
  type        = string
  default     = null

  validation {
    condition     = var.node_image == null || can(regex(":v1\\.(3[1-9]|[4-9][0-9])\\.", var.node_image))
    error_message = "The chart needs Kubernetes 1.31 or newer: an image such as kindest/node:v1.34.0."
  }
}

variable "nodes" {
  description = "The nodes: their role, labels, and ports of the host that lead into them."
  type = list(object({
    role   = string
    labels = optional(map(string), {})
    ports = optional(list(object({
      container = number
      host      = number
      address   = optional(string, "127.0.0.1")
    })), [])
  }))
  default = [{ role = "control-plane" }]

  validation {
    condition     = alltrue([for node in var.nodes : contains(["control-plane", "worker"], node.role)])
    error_message = "A node's role is control-plane or worker."
  }

  validation {
    condition     = length([for node in var.nodes : node if node.role == "control-plane"]) == 1
    error_message = "There is exactly one control-plane node: the provider can't change a cluster that is there, and one machine gains nothing by more."
  }

  validation {
    condition     = alltrue(flatten([for node in var.nodes : [for port in node.ports : min(port.container, port.host) >= 1 && max(port.container, port.host) <= 65535]]))
    error_message = "A port is between 1 and 65535."
  }

  validation {
    condition     = length(distinct(flatten([for node in var.nodes : [for port in node.ports : port.host]]))) == length(flatten([for node in var.nodes : node.ports]))
    error_message = "A port of the host leads into one node alone."
  }
}

variable "kubeconfig_path" {
  description = "File the credentials are written to; null: where kind writes them ($KUBECONFIG or ~/.kube/config)."
  type        = string
  default     = null

  validation {
    condition     = var.kubeconfig_path == null || !startswith(coalesce(var.kubeconfig_path, "/"), "~")
    error_message = "`~` is not expanded here: use pathexpand()."
  }
}
