variable "namespace" {
  description = "Namespace to install into: that of the shop, whose pods are found by their Services' names."
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

variable "storage_class" {
  description = "StorageClass of the volumes; empty: the cluster's default."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$", var.storage_class))
    error_message = "A StorageClass is named by lower-case letters, digits, hyphens and dots."
  }
}

variable "retention" {
  description = "Prometheus: the size of its volume, and how many MB of blocks it keeps on it; null: as the values say."
  type        = object({ size = string, max_mb = number })
  default     = null

  validation {
    condition     = var.retention == null || can(regex("^[0-9]+(Mi|Gi|Ti)$", var.retention.size))
    error_message = "A size is a whole number of Mi, Gi or Ti."
  }

  validation {
    condition     = var.retention == null || try(var.retention.max_mb >= 256 && floor(var.retention.max_mb) == var.retention.max_mb, false)
    error_message = "Prometheus keeps a whole number of MB, at least 256."
  }
}

variable "alerts" {
  description = "Rules (`standard`, or `drill`: 60 times as fast), where alerts are posted (empty: nowhere), and the Secret with Alertmanager's receivers (empty: none)."
  type = object({
    profile         = optional(string, "standard")
    webhook_url     = optional(string, "")
    existing_secret = optional(string, "")
  })
  default = {}

  validation {
    condition     = contains(["standard", "drill"], var.alerts.profile)
    error_message = "The profile is standard or drill."
  }

  validation {
    condition     = var.alerts.webhook_url == "" || can(regex("^https?://", var.alerts.webhook_url))
    error_message = "A webhook's address begins with http:// or https://."
  }
}

variable "off" {
  description = "Parts to leave out, since the cluster has its own: of alertmanager, blackbox, canary, collector, grafana, jaeger, kubeStateMetrics, prometheus, victorialogs."
  type        = set(string)
  default     = []

  validation {
    condition = length(setsubtract(var.off, [
      "alertmanager", "blackbox", "canary", "collector", "grafana", "jaeger", "kubeStateMetrics", "prometheus", "victorialogs",
    ])) == 0
    error_message = "There is no such part: see the description of `off`."
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
