"""What a fine-tune reads: scans and pairs, what is faulty, frames, prompt trees, and their order."""
