# The rules that are built into tflint; a provider's own rules would have to be downloaded.
plugin "terraform" {
  enabled = true
  preset  = "all"
}

# Roots and modules have versions.tf, and no providers.tf.
rule "terraform_standard_module_structure" {
  enabled = true
}
