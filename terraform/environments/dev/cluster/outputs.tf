output "context" {
  description = "The cluster's context in the kubeconfig."
  value       = module.cluster.context
}

output "kubeconfig_path" {
  description = "File that holds the credentials."
  value       = module.cluster.kubeconfig_path
}
