output "namespace" {
  description = "Namespace of the shop and its monitoring."
  value       = module.namespace.name
}

output "releases" {
  description = "The two releases, as `helm list` shows them."
  value       = [module.monitoring.release, module.shop.release]
}

output "url" {
  description = "Where the shop answers from outside; null without an Ingress."
  value       = module.shop.url
}
