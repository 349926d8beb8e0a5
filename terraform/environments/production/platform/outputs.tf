output "url" {
  description = "Where the shop answers."
  value       = module.platform.url
}

output "releases" {
  description = "The two releases, as `helm list` shows them."
  value       = module.platform.releases
}
