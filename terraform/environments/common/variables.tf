variable "environment" {
  description = "Which environment this is: a label of everything, and the chart's profile."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "production"], var.environment)
    error_message = "The environment is dev, staging or production."
  }
}

variable "namespace" {
  description = "Namespace of the shop and its monitoring."
  type        = string
  default     = "prove"
}

variable "chart" {
  description = "The chart: a directory or an `oci://` address."
  type        = string
}

variable "profile" {
  description = "The chart's values for this kind of cluster: a file beside the chart, as text."
  type        = string
}

variable "images" {
  description = "Registry and tag of the images built from this repository."
  type = object({
    registry = optional(string, "")
    tag      = optional(string, "")
  })
  default = {}
}

variable "quota" {
  description = "What all pods together may ask for: see the module `namespace`."
  type        = map(string)
  default     = {}
}

variable "access" {
  description = "Who may do what in the namespace: see the module `namespace`."
  type = object({
    viewers   = optional(list(object({ kind = string, name = string, namespace = optional(string) })), [])
    operators = optional(list(object({ kind = string, name = string, namespace = optional(string) })), [])
    deployers = optional(list(object({ kind = string, name = string, namespace = optional(string) })), [])
  })
  default = {}
}

variable "database_secret" {
  description = "Secret with the databases' URLs and the admin token; null: the chart's own PostgreSQL, and a token made by it."
  type        = string
  default     = null

  validation {
    condition     = var.environment == "dev" || var.database_secret != null
    error_message = "Only dev may use the chart's own PostgreSQL: it has no replica and no backup."
  }
}

variable "replicas" {
  description = "The fewest and the most replicas of each service."
  type        = object({ min = number, max = number })
}

variable "retention" {
  description = "Prometheus: the size of its volume, and how many MB of blocks it keeps; null: as the profile says."
  type        = object({ size = string, max_mb = number })
  default     = null
}

variable "alerts" {
  description = "Rules, webhook and receivers: see the module `monitoring`."
  type = object({
    profile         = optional(string, "standard")
    webhook_url     = optional(string, "")
    existing_secret = optional(string, "")
  })
  default = {}
}

variable "off" {
  description = "Parts of the monitoring to leave out: see the module `monitoring`."
  type        = set(string)
  default     = []
}

variable "ingress" {
  description = "Host name, IngressClass and certificate: see the module `shop`; null: no Ingress."
  type = object({
    host       = string
    class_name = optional(string, "")
    tls_secret = optional(string, "")
  })
  default = null
}

variable "wait" {
  description = "Whether to wait until all of it is ready, and for how many seconds."
  type = object({
    enabled   = optional(bool, true)
    timeout_s = optional(number, 600)
  })
  default = {}
}
