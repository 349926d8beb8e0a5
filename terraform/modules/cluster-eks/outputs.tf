output "name" {
  description = "Name of the cluster, by which it is looked up."
  value       = aws_eks_cluster.this.name

  # Who looks it up wants to install something, and that needs nodes.
  depends_on = [aws_eks_addon.this]
}

output "endpoint" {
  description = "Address of the API server."
  value       = aws_eks_cluster.this.endpoint
}

output "certificate_authority" {
  description = "Certificate of the API server's authority, base64."
  value       = aws_eks_cluster.this.certificate_authority[0].data
}

output "cost" {
  description = "What it costs in USD a day and a month of 730 hours, by part and in total, at `prices`: without traffic, load balancers and logs."
  value       = module.cost.cost
}
