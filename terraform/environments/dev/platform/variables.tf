variable "kubeconfig" {
  description = "A kubeconfig and a context in it, for a cluster that dev/cluster didn't make; null: the one it made."
  type        = object({ path = string, context = optional(string) })
  default     = null
}

variable "namespace" {
  description = "Namespace of the shop and its monitoring."
  type        = string
  default     = "prove"
}

variable "tag" {
  description = "Tag of the images; empty: the chart's appVersion. `provectl up --on kind --images-only` brings them in."
  type        = string
  default     = ""
}

variable "off" {
  description = "Parts of the monitoring to leave out: see the module `monitoring`."
  type        = set(string)
  default     = []
}

variable "wait" {
  description = "Whether to wait until all of it is ready, and for how many seconds."
  type = object({
    enabled   = optional(bool, true)
    timeout_s = optional(number, 600)
  })
  default = {}
}
