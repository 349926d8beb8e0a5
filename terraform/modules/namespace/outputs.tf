output "name" {
  description = "The namespace, once it exists: what is installed in it depends on this."
  value       = kubernetes_namespace_v1.this.metadata[0].name
}

output "labels" {
  description = "The labels of the namespace, with those of Pod Security."
  value       = kubernetes_namespace_v1.this.metadata[0].labels
}

output "roles" {
  description = "Names of the roles, by what they are for: viewer, operator, deployer."
  value       = { for name, role in kubernetes_role_v1.this : name => role.metadata[0].name }
}

output "uid" {
  description = "The server's identity of the namespace: another one is another namespace."
  value       = kubernetes_namespace_v1.this.metadata[0].uid
}
