locals {
  labels = merge(var.labels, { "app.kubernetes.io/managed-by" = "terraform" })

  read  = ["get", "list", "watch"]
  write = ["get", "list", "watch", "create", "update", "patch", "delete"]

  # Least privilege: each role has the rules of the one before it. Secrets are the deployers' alone,
  # whose releases Helm keeps in them.
  view = [
    { groups = [""], resources = ["configmaps", "endpoints", "events", "limitranges", "persistentvolumeclaims", "pods", "resourcequotas", "serviceaccounts", "services"], verbs = local.read },
    { groups = ["apps"], resources = ["daemonsets", "deployments", "replicasets", "statefulsets"], verbs = local.read },
    { groups = ["autoscaling"], resources = ["horizontalpodautoscalers"], verbs = local.read },
    { groups = ["batch"], resources = ["cronjobs", "jobs"], verbs = local.read },
    { groups = ["discovery.k8s.io"], resources = ["endpointslices"], verbs = local.read },
    { groups = ["networking.k8s.io"], resources = ["ingresses", "networkpolicies"], verbs = local.read },
    { groups = ["policy"], resources = ["poddisruptionbudgets"], verbs = local.read },
  ]
  operate = concat(local.view, [
    { groups = [""], resources = ["pods/log"], verbs = ["get"] },
    { groups = [""], resources = ["pods/portforward", "pods/eviction"], verbs = ["create"] },
    { groups = [""], resources = ["pods"], verbs = ["delete"] },
    { groups = ["apps"], resources = ["deployments", "statefulsets"], verbs = ["patch"] },
    { groups = ["apps"], resources = ["deployments/scale", "statefulsets/scale"], verbs = ["get", "patch", "update"] },
  ])
  deploy = concat(local.operate, [
    { groups = [""], resources = ["configmaps", "persistentvolumeclaims", "pods", "secrets", "serviceaccounts", "services"], verbs = local.write },
    { groups = ["apps"], resources = ["daemonsets", "deployments", "statefulsets"], verbs = local.write },
    { groups = ["autoscaling"], resources = ["horizontalpodautoscalers"], verbs = local.write },
    { groups = ["batch"], resources = ["cronjobs", "jobs"], verbs = local.write },
    { groups = ["networking.k8s.io"], resources = ["ingresses", "networkpolicies"], verbs = local.write },
    { groups = ["policy"], resources = ["poddisruptionbudgets"], verbs = local.write },
    # Without `escalate` and `bind`: a release can only be granted what its deployer may do.
    { groups = ["rbac.authorization.k8s.io"], resources = ["rolebindings", "roles"], verbs = local.write },
  ])

  roles = {
    viewer   = { rules = local.view, subjects = var.access.viewers }
    operator = { rules = local.operate, subjects = var.access.operators }
    deployer = { rules = local.deploy, subjects = var.access.deployers }
  }
}

resource "kubernetes_namespace_v1" "this" {
  metadata {
    name = var.name
    labels = merge(local.labels, {
      for mode in ["enforce", "warn", "audit"] : "pod-security.kubernetes.io/${mode}" => var.pod_security.level
      }, {
      for mode in ["enforce", "warn", "audit"] : "pod-security.kubernetes.io/${mode}-version" => var.pod_security.version
    })
  }
}

resource "kubernetes_resource_quota_v1" "this" {
  metadata {
    name      = "prove"
    namespace = kubernetes_namespace_v1.this.metadata[0].name
    labels    = local.labels
  }

  spec {
    hard = {
      "requests.cpu"     = var.quota.requests_cpu
      "requests.memory"  = var.quota.requests_memory
      "limits.cpu"       = var.quota.limits_cpu
      "limits.memory"    = var.quota.limits_memory
      "requests.storage" = var.quota.requests_storage
      "pods"             = tostring(var.quota.pods)
    }
  }
}

resource "kubernetes_limit_range_v1" "this" {
  metadata {
    name      = "prove"
    namespace = kubernetes_namespace_v1.this.metadata[0].name
    labels    = local.labels
  }

  spec {
    limit {
      type            = "Container"
      default_request = var.container.default_request
      default         = var.container.default
      max             = var.container.max
    }
  }
}

resource "kubernetes_role_v1" "this" {
  for_each = local.roles

  metadata {
    name      = "prove-${each.key}"
    namespace = kubernetes_namespace_v1.this.metadata[0].name
    labels    = local.labels
  }

  dynamic "rule" {
    for_each = each.value.rules

    content {
      api_groups = rule.value.groups
      resources  = rule.value.resources
      verbs      = rule.value.verbs
    }
  }
}

resource "kubernetes_role_binding_v1" "this" {
  for_each = { for name, role in local.roles : name => role if length(role.subjects) > 0 }

  metadata {
    name      = "prove-${each.key}"
    namespace = kubernetes_namespace_v1.this.metadata[0].name
    labels    = local.labels
  }

  role_ref {
    api_group = "rbac.authorization.k8s.io"
    kind      = "Role"
    name      = kubernetes_role_v1.this[each.key].metadata[0].name
  }

  dynamic "subject" {
    for_each = each.value.subjects

    content {
      kind      = subject.value.kind
      name      = subject.value.name
      namespace = subject.value.namespace
      api_group = subject.value.kind == "ServiceAccount" ? "" : "rbac.authorization.k8s.io"
    }
  }
}
