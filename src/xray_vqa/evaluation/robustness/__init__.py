"""What a model's detection is worth when scans are worse or other than those that it was measured on."""
