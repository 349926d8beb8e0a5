output "name" {
  description = "Name of the cluster, as `kind get clusters` shows it."
  value       = kind_cluster.this.name
}

output "context" {
  description = "Its context in the kubeconfig: what `provectl up --on context` and kubectl are given."
  value       = "kind-${kind_cluster.this.name}"
}

output "kubeconfig_path" {
  description = "File that holds the credentials."
  value       = kind_cluster.this.kubeconfig_path
}

output "endpoint" {
  description = "Address of the API server."
  value       = kind_cluster.this.endpoint
}
