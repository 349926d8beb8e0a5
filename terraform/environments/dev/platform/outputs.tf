output "namespace" {
  description = "Namespace of the shop and its monitoring."
  value       = module.platform.namespace
}

output "releases" {
  description = "The two releases, as `helm list` shows them."
  value       = module.platform.releases
}
