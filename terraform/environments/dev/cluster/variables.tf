variable "node_image" {
  description = "Image of the nodes, `kindest/node:v<version>`; null: the one the provider's kind was released with."
  type        = string
  default     = null
}

variable "kubeconfig_path" {
  description = "File the credentials are written to; null: one beside the state, so that yours stays as it is."
  type        = string
  default     = null
}
