data "aws_availability_zones" "this" {
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

data "aws_partition" "this" {}

locals {
  zones = slice(data.aws_availability_zones.this.names, 0, var.zones)
  nats  = var.nat == "each" ? local.zones : [local.zones[0]]

  # Each zone has one half of the /16 for nodes and pods, one for what faces the internet.
  private = { for at, zone in local.zones : zone => cidrsubnet(var.cidr, 4, at) }
  public  = { for at, zone in local.zones : zone => cidrsubnet(var.cidr, 4, at + 8) }

  policy = "arn:${data.aws_partition.this.partition}:iam::aws:policy"
}

# --- network -------------------------------------------------------------------------------------

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_hostnames = true
  tags                 = merge(var.tags, { Name = var.name })
}

# The group every interface gets that names none: without rules it lets nothing through.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${var.name}-none" })
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = var.name })
}

resource "aws_subnet" "public" {
  for_each = local.public

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = each.value
  tags              = merge(var.tags, { Name = "${var.name}-public-${each.key}", "kubernetes.io/role/elb" = "1" })
}

resource "aws_subnet" "private" {
  for_each = local.private

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = each.value
  tags              = merge(var.tags, { Name = "${var.name}-private-${each.key}", "kubernetes.io/role/internal-elb" = "1" })
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${var.name}-public" })
}

resource "aws_route" "public" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

resource "aws_eip" "nat" {
  for_each = toset(local.nats)

  domain = "vpc"
  tags   = merge(var.tags, { Name = "${var.name}-nat-${each.key}" })
}

resource "aws_nat_gateway" "this" {
  for_each = toset(local.nats)

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = merge(var.tags, { Name = "${var.name}-${each.key}" })

  depends_on = [aws_internet_gateway.this]
}

resource "aws_route_table" "private" {
  for_each = local.private

  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${var.name}-private-${each.key}" })
}

resource "aws_route" "private" {
  for_each = local.private

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[contains(local.nats, each.key) ? each.key : local.nats[0]].id
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}

# --- identities ----------------------------------------------------------------------------------

data "aws_iam_policy_document" "assume" {
  for_each = {
    cluster = { service = "eks.amazonaws.com", actions = ["sts:AssumeRole"] }
    node    = { service = "ec2.amazonaws.com", actions = ["sts:AssumeRole"] }
    volumes = { service = "pods.eks.amazonaws.com", actions = ["sts:AssumeRole", "sts:TagSession"] }
  }

  statement {
    actions = each.value.actions

    principals {
      type        = "Service"
      identifiers = [each.value.service]
    }
  }
}

resource "aws_iam_role" "this" {
  for_each = data.aws_iam_policy_document.assume

  name               = "${var.name}-${each.key}"
  assume_role_policy = each.value.json
  tags               = var.tags
}

resource "aws_iam_role_policy_attachment" "this" {
  for_each = {
    cluster  = { role = "cluster", policy = "AmazonEKSClusterPolicy" }
    worker   = { role = "node", policy = "AmazonEKSWorkerNodePolicy" }
    network  = { role = "node", policy = "AmazonEKS_CNI_Policy" }
    registry = { role = "node", policy = "AmazonEC2ContainerRegistryPullOnly" }
    volumes  = { role = "volumes", policy = "service-role/AmazonEBSCSIDriverPolicy" }
  }

  role       = aws_iam_role.this[each.value.role].name
  policy_arn = "${local.policy}/${each.value.policy}"
}

# --- cluster -------------------------------------------------------------------------------------

resource "aws_kms_key" "this" {
  description         = "Secrets of the EKS cluster ${var.name}"
  enable_key_rotation = true
  tags                = var.tags
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = 30
  tags              = var.tags
}

resource "aws_eks_cluster" "this" {
  name     = var.name
  version  = var.kubernetes_version
  role_arn = aws_iam_role.this["cluster"].arn
  tags     = var.tags

  enabled_cluster_log_types = ["api", "audit", "authenticator"]

  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = false
  }

  encryption_config {
    resources = ["secrets"]

    provider {
      key_arn = aws_kms_key.this.arn
    }
  }

  upgrade_policy {
    # Never the six times dearer extended support by forgetting: AWS upgrades it instead.
    support_type = "STANDARD"
  }

  vpc_config {
    subnet_ids              = [for subnet in aws_subnet.private : subnet.id]
    endpoint_private_access = true
    endpoint_public_access  = length(var.public_access_cidrs) > 0
    public_access_cidrs     = length(var.public_access_cidrs) > 0 ? var.public_access_cidrs : null
  }

  # Its log group is made with a retention before it makes one without; its role is taken away last.
  depends_on = [aws_cloudwatch_log_group.this, aws_iam_role_policy_attachment.this]
}

resource "aws_eks_access_entry" "admin" {
  for_each = var.admins

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.value
  tags          = var.tags
}

resource "aws_eks_access_policy_association" "admin" {
  for_each = aws_eks_access_entry.admin

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.value.principal_arn
  policy_arn    = "arn:${data.aws_partition.this.partition}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

  access_scope {
    type = "cluster"
  }
}

# --- nodes ---------------------------------------------------------------------------------------

resource "aws_launch_template" "node" {
  name_prefix = "${var.name}-"
  tags        = var.tags

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type = "gp3"
      volume_size = var.nodes.disk_gb
      encrypted   = true
    }
  }

  # One hop: a pod can't ask for the node's credentials.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(var.tags, { Name = "${var.name}-node" })
  }
}

# Without it no node becomes ready. NetworkPolicies are enforced only when asked for.
resource "aws_eks_addon" "network" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "vpc-cni"
  configuration_values        = jsonencode({ enableNetworkPolicy = "true" })
  resolve_conflicts_on_update = "OVERWRITE"
  tags                        = var.tags
}

resource "aws_eks_node_group" "this" {
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = "${var.name}-nodes"
  node_role_arn   = aws_iam_role.this["node"].arn
  subnet_ids      = [for subnet in aws_subnet.private : subnet.id]
  instance_types  = [var.nodes.instance_type]
  capacity_type   = var.nodes.capacity_type
  tags            = var.tags

  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version
  }

  scaling_config {
    min_size     = var.nodes.min
    desired_size = var.nodes.desired
    max_size     = var.nodes.max
  }

  update_config {
    max_unavailable = 1
  }

  # How many there are is an autoscaler's matter afterwards.
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_eks_addon.network, aws_iam_role_policy_attachment.this, aws_route.private]
}

resource "aws_eks_addon" "this" {
  for_each = {
    "coredns"                = null
    "kube-proxy"             = null
    "eks-pod-identity-agent" = null
    # The autoscalers' figures.
    "metrics-server" = null
    # EKS has no default StorageClass of its own.
    "aws-ebs-csi-driver" = jsonencode({ defaultStorageClass = { enabled = true } })
  }

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  configuration_values        = each.value
  resolve_conflicts_on_update = "OVERWRITE"
  tags                        = var.tags

  dynamic "pod_identity_association" {
    for_each = each.key == "aws-ebs-csi-driver" ? ["ebs-csi-controller-sa"] : []

    content {
      role_arn        = aws_iam_role.this["volumes"].arn
      service_account = pod_identity_association.value
    }
  }

  depends_on = [aws_eks_node_group.this]
}

# --- cost ----------------------------------------------------------------------------------------

module "cost" {
  source = "./cost"

  nodes      = var.nodes.desired
  disk_gb    = var.nodes.disk_gb
  nats       = var.nat == "each" ? var.zones : 1
  volumes_gb = var.volumes_gb
  prices     = var.prices
}
