# The rules that are built into tflint; a provider's own rules would have to be downloaded.
plugin "terraform" {
  enabled = true
  preset  = "all"
}

# Examples are one file, to be read at once. What modules are made of, tests/integration/test_terraform.py says.
rule "terraform_standard_module_structure" {
  enabled = false
}
