variable "namespace" {
  description = "Namespace to install into."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "A namespace is at most 63 lower-case letters, digits and hyphens."
  }
}

variable "chart" {
  description = "The chart: a directory (charts/prove of this repository) or an `oci://` address."
  type        = string

  validation {
    condition     = length(trimspace(var.chart)) > 0
    error_message = "Name the chart."
  }
}

variable "chart_version" {
  description = "Version of the chart; null for a directory, which holds one."
  type        = string
  default     = null

  validation {
    condition     = var.chart_version == null || can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+", var.chart_version))
    error_message = "A version of a chart is major.minor.patch."
  }
}

variable "images" {
  description = "Registry and tag of the images built from this repository."
  type = object({
    registry = optional(string, "")
    tag      = optional(string, "")
  })
  default = {}

  validation {
    condition     = !can(regex("://", var.images.registry)) && var.images.tag != "latest"
    error_message = "A registry is a host with an optional path and no scheme; the tag is a version, since `latest` is another one tomorrow."
  }
}

variable "database" {
  description = "The databases: `secret` names the Secret with the services' URLs and the admin token (never in Terraform's state); without it the chart's own PostgreSQL of `size`, which has no replica and no backup."
  type = object({
    secret = optional(string)
    size   = optional(string, "4Gi")
  })
  default = {}

  validation {
    condition     = can(regex("^[0-9]+(Mi|Gi|Ti)$", var.database.size))
    error_message = "A size is a whole number of Mi, Gi or Ti."
  }

  validation {
    condition     = var.database.secret == null || can(regex("^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", var.database.secret))
    error_message = "This is the name of a Secret, not what is in it."
  }
}

variable "storage_class" {
  description = "StorageClass of the volumes; empty: the cluster's default."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$", var.storage_class))
    error_message = "A StorageClass is named by lower-case letters, digits, hyphens and dots."
  }
}

variable "replicas" {
  description = "The fewest and the most replicas of each service: its autoscaler goes between them."
  type        = object({ min = number, max = number })
  default     = { min = 2, max = 6 }

  validation {
    condition     = var.replicas.min >= 1 && var.replicas.max >= var.replicas.min
    error_message = "At least one replica, and no fewer at most than at least."
  }
}

variable "telemetry_endpoint" {
  description = "Where the services send OTLP over HTTP: the output of the module `monitoring`. Empty: where the chart's Collector would be."
  type        = string
  default     = ""

  validation {
    condition     = var.telemetry_endpoint == "" || can(regex("^https?://[^/]+$", var.telemetry_endpoint))
    error_message = "An endpoint is http:// or https://, a host and a port, without a path."
  }
}

variable "ingress" {
  description = "The host name the shop answers to from outside, the IngressClass, and the Secret with its certificate; null: no Ingress."
  type = object({
    host       = string
    class_name = optional(string, "")
    tls_secret = optional(string, "")
  })
  default = null

  validation {
    condition     = var.ingress == null || can(regex("^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$", var.ingress.host))
    error_message = "A host is a full name such as shop.example.com."
  }
}

variable "wait" {
  description = "Whether to wait until all of it is ready, and for how many seconds."
  type = object({
    enabled   = optional(bool, true)
    timeout_s = optional(number, 600)
  })
  default = {}

  validation {
    condition     = var.wait.timeout_s >= 30
    error_message = "Images are pulled in that time: wait 30 seconds at least."
  }
}

variable "values" {
  description = "Values of the chart as YAML documents, a profile first: a later one wins, and what the other variables say wins over all."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for document in var.values : can(yamldecode(document))])
    error_message = "Each one is a YAML document."
  }
}
