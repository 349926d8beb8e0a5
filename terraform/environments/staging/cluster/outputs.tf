output "name" {
  description = "Name of the cluster."
  value       = module.cluster.name
}

output "region" {
  description = "Region of the cluster."
  value       = local.state.region
}

output "cost" {
  description = "What it costs in USD a day and a month, by part and in total: without traffic, load balancers and logs."
  value       = module.cluster.cost
}
