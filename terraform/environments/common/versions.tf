terraform {
  # The providers are those of the modules.
  required_version = ">= 1.11"
}
