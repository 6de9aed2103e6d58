"""Training: fine-tuning through transformers' Trainer, and the pre-training of nano on simulated scans."""
