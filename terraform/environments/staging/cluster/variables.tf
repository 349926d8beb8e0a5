variable "admins" {
  description = "ARNs of the IAM roles and users that are administrators of the cluster; whoever applies `platform` is one of them."
  type        = set(string)
}

variable "public_access_cidrs" {
  description = "From where the API server can be reached over the internet; empty: from inside the VPC alone."
  type        = list(string)
  default     = []
}
