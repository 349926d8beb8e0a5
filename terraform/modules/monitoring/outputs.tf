output "release" {
  description = "Name, namespace and state of the release."
  value = {
    name      = helm_release.this.name
    namespace = helm_release.this.namespace
    status    = helm_release.this.status
  }
}

output "telemetry_endpoint" {
  description = "Where services send OTLP over HTTP; empty where the Collector is left out."
  value       = contains(var.off, "collector") ? "" : "http://collector.${helm_release.this.namespace}:4318"
}
