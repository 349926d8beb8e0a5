variable "name" {
  description = "Name of the namespace."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", var.name))
    error_message = "A namespace is at most 63 lower-case letters, digits and hyphens, and begins and ends with a letter or digit."
  }

  validation {
    condition     = !startswith(var.name, "kube-") && var.name != "default"
    error_message = "`default` and `kube-*` belong to Kubernetes: choose another name."
  }
}

variable "labels" {
  description = "Labels of every object, beside `app.kubernetes.io/managed-by`."
  type        = map(string)
  default     = {}
}

variable "pod_security" {
  description = "Pod Security Standard that is enforced, warned of and audited, and the Kubernetes minor whose rules it means (`latest`: the cluster's)."
  type = object({
    level   = optional(string, "restricted")
    version = optional(string, "latest")
  })
  default = {}

  validation {
    condition     = contains(["restricted", "baseline", "privileged"], var.pod_security.level)
    error_message = "The level is one of restricted, baseline, privileged."
  }

  validation {
    condition     = can(regex("^(latest|v1\\.[0-9]+)$", var.pod_security.version))
    error_message = "The version is `latest` or a minor such as `v1.34`."
  }
}

variable "quota" {
  description = "What all pods of the namespace together may ask for. CPU in cores, memory and storage in bytes, as Kubernetes writes quantities."
  type = object({
    requests_cpu     = optional(string, "8")
    requests_memory  = optional(string, "8Gi")
    limits_cpu       = optional(string, "32")
    limits_memory    = optional(string, "16Gi")
    requests_storage = optional(string, "40Gi")
    pods             = optional(number, 60)
  })
  default = {}

  validation {
    condition = alltrue([
      for name, value in var.quota : can(regex("^[0-9]+(\\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$", tostring(value)))
    ])
    error_message = "A quantity is a number with an optional suffix: 500m, 8, 512Mi, 16Gi."
  }

  validation {
    condition     = var.quota.pods >= 1
    error_message = "A quota of less than one pod lets nothing run."
  }
}

variable "container" {
  description = "Limit range of one container: what it gets when it says nothing, and the most it may ask for."
  type = object({
    default_request = optional(map(string), { cpu = "50m", memory = "64Mi" })
    default         = optional(map(string), { cpu = "500m", memory = "256Mi" })
    max             = optional(map(string), { cpu = "4", memory = "4Gi" })
  })
  default = {}

  validation {
    condition = alltrue([
      for limit in values(var.container) : alltrue([for name in keys(limit) : contains(["cpu", "memory", "ephemeral-storage"], name)])
    ])
    error_message = "Limits are of cpu, memory and ephemeral-storage."
  }
}

variable "access" {
  description = "Who may do what here: `viewers` read all but secrets; `operators` also restart, scale, evict, read logs and forward ports; `deployers` install releases."
  type = object({
    viewers   = optional(list(object({ kind = string, name = string, namespace = optional(string) })), [])
    operators = optional(list(object({ kind = string, name = string, namespace = optional(string) })), [])
    deployers = optional(list(object({ kind = string, name = string, namespace = optional(string) })), [])
  })
  default = {}

  validation {
    condition = alltrue([
      for subject in flatten(values(var.access)) : contains(["User", "Group", "ServiceAccount"], subject.kind)
    ])
    error_message = "A subject's kind is User, Group or ServiceAccount."
  }

  validation {
    condition = alltrue([
      for subject in flatten(values(var.access)) : subject.kind != "ServiceAccount" || subject.namespace != null
    ])
    error_message = "A ServiceAccount is named with its namespace."
  }
}
