output "release" {
  description = "Name, namespace and state of the release."
  value = {
    name      = helm_release.this.name
    namespace = helm_release.this.namespace
    status    = helm_release.this.status
  }
}

output "url" {
  description = "Where the shop answers from outside; null without an Ingress: use `provectl up --on context` or a port-forward."
  value       = var.ingress == null ? null : "${var.ingress.tls_secret == "" ? "http" : "https"}://${var.ingress.host}"
}
