terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }

  # Bucket, region and locking: terraform init -backend-config=../../state.s3.json
  backend "s3" {
    key = "production/cluster.tfstate"
  }
}
