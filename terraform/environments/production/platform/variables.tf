variable "images" {
  description = "Registry and tag of the images that were pushed."
  type        = object({ registry = string, tag = string })
}

variable "host" {
  description = "Host name the shop answers to."
  type        = string
}
